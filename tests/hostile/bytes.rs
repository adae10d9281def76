//! R8: streams that never end a record, bytes that drip, frames that lie.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use serde_json::Value;

use crate::engine::{Engine, Honest, is_closed};
use crate::program::http::api;
use crate::{Case, Found, ONE_AT_A_TIME, PATIENCE, cases, expect, is_count};

/// The longest record of R8.
const RECORD_MAX: usize = 16 << 10;

/// The connections that never end a record, and the bytes of each: together more than the bound, if they were kept.
const FLOODS: usize = 20;
const FLOOD_ROUNDS: usize = 40;
const FLOOD_BYTES: usize = 128 << 10;

/// The connections that send a byte in each round.
const DRIPS: usize = 20;

/// The most memory of the program beside its connections' records.
const MEMORY_BESIDES: u64 = 64 << 20;

/// The honest sender's records per round.
const HONEST: u64 = 50;

/// The longest record of the peers that stop one byte before its end, and the number of these peers.
const ALMOST_MAX: usize = 256 << 10;
const ALMOST: usize = 400;

/// The same with a pool: its threads serve this many, and one more.
const ALMOST_OF_POOL: usize = 127;

/// `store_bytes_max` in this case; unfinished records may take a quarter of it.
const ALMOST_STORE: u64 = 8 << 20;

/// Each peer has sent almost a whole record: together more than memory has room for. Then all end theirs.
pub fn r8_almost_whole(case: Case) -> Found {
    let (store, record) = (
        format!("store_bytes_max={}MiB", ALMOST_STORE >> 20),
        format!("source.in.record_bytes_max={}KiB", ALMOST_MAX >> 10),
    );
    // A connection without a thread is not read, and takes no memory.
    let threads = format!("source.in.pool_threads={}", ALMOST_OF_POOL + 1);
    let options = ["--set", &store, "--set", &record, "--set", &threads];
    let count = if case.model == "pool" { ALMOST_OF_POOL } else { ALMOST };
    let mut engine = Engine::start(case, "count", &options, None);
    let pages = engine.pages;
    let receiver = |name: &str| api(pages, "receivers")[0][name].as_u64().unwrap_or(0);
    let mut honest = Honest { stream: engine.connect(), lines: 0 };
    let mut peers: Vec<TcpStream> = (0..count).map(|_| engine.connect()).collect();
    let almost = vec![b'x'; ALMOST_MAX - 1];
    for peer in &mut peers {
        honest.send(10)?;
        let sent = peer.write_all(&almost);
        sent.map_err(|err| format!("a peer is not read: {err}"))?;
    }
    let all = (count * almost.len()) as u64;
    engine.until("all of it is read", |_| receiver("bytes") >= all)?;
    let sent = honest.lines;
    engine.until_counted(sent)?;
    let memory = engine.memory();
    let bound = ALMOST_STORE + MEMORY_BESIDES;
    expect(memory <= bound, || format!("memory: {memory} bytes, {bound} allowed"))?;
    let status = api(pages, "status");
    let (unfinished, most) = (&status["unfinished_bytes"], &status["unfinished_bytes_max"]);
    is_count(most, ALMOST_STORE / 4, "unfinished_bytes_max")?;
    let kept = unfinished.as_u64().unwrap_or(0);
    let short = ALMOST_MAX as u64;
    expect((short..=ALMOST_STORE / 4).contains(&kept), || format!("{kept} unfinished bytes"))?;
    let given_up = receiver("given_up");
    for peer in &mut peers {
        let sent = peer.write_all(b"\n").and_then(|()| peer.shutdown(Shutdown::Write));
        sent.map_err(|err| format!("a peer is not read: {err}"))?;
    }
    engine.until("the peers are gone", |_| peers.iter().all(is_closed))?;
    let whole = count as u64 - given_up;
    engine.until_counted(sent + whole)?;
    let left = api(pages, "status")["unfinished_bytes"].as_u64().unwrap_or(u64::MAX);
    expect(left <= 4096, || format!("{left} unfinished bytes are left"))?;
    let (counters, rows) = engine.finish()?;
    is_count(&counters["given_up"], given_up, "records given up")?;
    is_count(&counters["overlong"], given_up, "records dropped")?;
    let counted: u64 = rows.iter().filter_map(|row| row[0].as_u64()).sum();
    expect(counted == sent + whole, || format!("{counted} records instead of {}", sent + whole))
}

/// The hostile bytes in one framing.
pub struct Attack {
    framing: &'static str,
    /// The beginning of a stream that never ends its record.
    endless: &'static [u8],
    /// The bytes that drip.
    drip: &'static [u8],
    /// Records of NULs and invalid UTF-8, which the program must not care about.
    junk: &'static [u8],
    /// Streams with a malformed frame.
    malformed: &'static [&'static [u8]],
    pub honest: fn(u64) -> Vec<u8>,
}

pub const ATTACKS: [Attack; 4] = [
    Attack {
        framing: "lines",
        endless: b"x",
        drip: b"x",
        junk: b"\0\0\0\n\xff\xfe\xc3(\n\xed\xa0\x80\r\n\0honest\n\n",
        malformed: &[],
        honest: |number| format!("honest {number}\n").into_bytes(),
    },
    Attack {
        framing: "octet_counted",
        endless: b"999999999 ",
        drip: b"9999 xxxxx",
        junk: b"3 \x00\x00\x0010 \xff\xfe\xc3(honest1 \n",
        malformed: &[b"1234567890 x", b"\0", b"0 ", b"99999999x", b"\xff\xff", b"-1 x"],
        honest: |number| counted(&format!("honest {number}")),
    },
    Attack {
        framing: "syslog",
        endless: b"999999999 ",
        drip: b"<13>xxxxxx",
        junk: b"\0\0\0\n3 \0\0\0\xff\xfe\xc3(\n0 honest\n",
        malformed: &[b"1234567890 x", b"2026-01-01 x\n", b"1\0"],
        honest: |number| match number % 2 {
            0 => counted(&format!("honest {number}")),
            _ => format!("honest {number}\n").into_bytes(),
        },
    },
    Attack {
        framing: "u32",
        endless: b"\xff\xff\xff\xff",
        drip: b"\0\0\x10\0xxxxx",
        junk: b"\0\0\0\x03\0\0\0\0\0\0\x04\xff\xfe\xc3(\0\0\0\0",
        malformed: &[],
        honest: |number| {
            let record = format!("honest {number}");
            let len = u32::try_from(record.len()).expect("short");
            [&len.to_be_bytes(), record.as_bytes()].concat()
        },
    },
];

pub fn counted(record: &str) -> Vec<u8> {
    format!("{} {record}", record.len()).into_bytes()
}

/// The hostile peers.
struct Hostile {
    floods: Vec<TcpStream>,
    drips: Vec<TcpStream>,
}

impl Hostile {
    pub fn new(engine: &Engine, attack: &Attack) -> Hostile {
        let peers = |count, start: &[u8]| -> Vec<TcpStream> {
            let peer = |_| {
                let mut stream = engine.connect();
                stream.write_all(start).expect("it is read");
                stream
            };
            (0..count).map(peer).collect()
        };
        for start in attack.malformed {
            drop(peers(1, start));
        }
        Hostile { floods: peers(FLOODS, attack.endless), drips: peers(DRIPS, b"") }
    }

    pub fn send(&mut self, engine: &Engine, attack: &Attack, round: usize) -> Found {
        let failed = |err| format!("a hostile peer is not read: {err}");
        let flood = vec![b'x'; FLOOD_BYTES];
        for peer in &mut self.floods {
            peer.write_all(&flood).map_err(failed)?;
        }
        let drip = attack.drip[round % attack.drip.len().max(1)];
        let drip = if round < attack.drip.len() { drip } else { b'x' };
        for peer in &mut self.drips {
            peer.write_all(&[drip]).map_err(failed)?;
        }
        engine.connect().write_all(attack.junk).map_err(failed)
    }
}

/// The honest sender's records in the output, with or without hostile peers beside it.
fn honest_output(case: Case, attack: &Attack, hostile: bool) -> Result<Vec<Value>, String> {
    let limit = format!("source.in.record_bytes_max={}KiB", RECORD_MAX >> 10);
    let options = ["--framing", attack.framing, "--set", &limit];
    let mut engine = Engine::start(case, "grep=^honest ", &options, None);
    let mut honest = engine.connect();
    let mut enemies = hostile.then(|| Hostile::new(&engine, attack));
    for round in 0..FLOOD_ROUNDS {
        let numbers = HONEST * round as u64..HONEST * (round as u64 + 1);
        let bytes: Vec<u8> = numbers.flat_map(attack.honest).collect();
        let sent = honest.write_all(&bytes);
        sent.map_err(|err| format!("the honest sender is not read: {err}"))?;
        if let Some(enemies) = &mut enemies {
            enemies.send(&engine, attack, round)?;
        }
    }
    let all = usize::try_from(HONEST).expect("small") * FLOOD_ROUNDS;
    engine.until("honest records counted", |engine| engine.rows.len() >= all)?;
    if let Some(enemies) = &enemies {
        // Bytes that are still on their way would be counted too late.
        for peer in &enemies.floods {
            peer.shutdown(Shutdown::Write).expect("connected");
        }
        engine.until("the floods were read", |_| enemies.floods.iter().all(is_closed))?;
    }
    let memory = engine.memory();
    let bound = ((2 + FLOODS + DRIPS) * RECORD_MAX) as u64 + MEMORY_BESIDES;
    expect(memory <= bound, || format!("memory: {memory} bytes, {bound} allowed"))?;
    let (counters, rows) = engine.finish()?;
    if hostile {
        is_count(&counters["malformed"], attack.malformed.len() as u64, "malformed peers")?;
        let overlong = counters["overlong"].as_u64().unwrap_or(0);
        expect(overlong >= FLOODS as u64, || format!("{overlong} over-long records"))?;
    }
    Ok(rows)
}

pub fn r8(case: Case, attack: &Attack) -> Found {
    let expected: Vec<Value> = (0..HONEST * FLOOD_ROUNDS as u64)
        .map(|number| Value::from(vec![format!("honest {number}")]))
        .collect();
    let calm = honest_output(Case { planted: None, ..case }, attack, false)?;
    expect(calm == expected, || "the honest output alone is not what was sent".to_owned())?;
    let rows = honest_output(case, attack, true)?;
    expect(rows == calm, || "the honest output differs".to_owned())
}

#[test]
fn r8_hostile_bytes_take_neither_memory_nor_records() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r8(case, &ATTACKS[0]), Ok(()), "{}", case.model);
    }
}

#[test]
fn r8_records_that_never_end_take_no_more_memory_than_they_may() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r8_almost_whole(case), Ok(()), "{}", case.model);
    }
}

#[test]
fn r8_hostile_frames_take_neither_memory_nor_records() {
    let _alone = ONE_AT_A_TIME.lock();
    let case = Case { model: "nio", planted: None, patience: PATIENCE };
    for attack in &ATTACKS[1..] {
        assert_eq!(r8(case, attack), Ok(()), "{}", attack.framing);
    }
}
