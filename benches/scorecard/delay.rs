//! The second half of P10: how long a RELP client waits for an acknowledgement that follows the sync of the log. Between
//! any two records this process writes and syncs as many bytes itself, on the same disk, so that both meet the same noise.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use tidemill::internals::lab::stats::{median, quantile};

use crate::syslog::{RECORD_BYTES, Receiver, What, Who};
use crate::verdict::{Sheet, Target};
use crate::wait::{LIMIT, now, pause_until};
use crate::{Options, Outcome};

/// From a record to the next: a rate at which nothing queues, so that an answer waits for its own sync alone.
const APART: Duration = Duration::from_millis(10);

/// Bytes of a record with what RELP puts around it, about.
const FRAME_BYTES: usize = RECORD_BYTES + 12;

/// Milliseconds of each record: until its answer, and for the bare write and sync that came next.
#[derive(Default)]
struct Times {
    answers: Vec<f64>,
    syncs: Vec<f64>,
}

pub fn delay(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P10: from a RELP record to its acknowledgement, one at a time, beside a bare write + fdatasync of as many bytes")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let records = (options.seconds * 200.0) as usize;
    let runs = (0..options.pairs).map(|_| run(records.max(20))).collect::<Outcome<Vec<_>>>()?;
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let each = |of: fn(&Times) -> &Vec<f64>| -> Vec<f64> {
            runs.iter().map(|times| quantile(of(times), part)).collect()
        };
        let (answers, syncs) = (each(|times| &times.answers), each(|times| &times.syncs));
        let sync = median(&syncs);
        // At most two syncs and 5 ms; better one and 1 ms.
        let target = Target::AtMost { pass: rounded(2.0 * sync + 5.0), goal: rounded(sync + 1.0) };
        sheet.line(&format!("acknowledgement, {name}"), "ms").judge(&answers, target)?;
        let bare = format!("    bare write + fdatasync, {name}");
        sheet.line(&bare, "ms").show(&syncs)?;
    }
    Ok(())
}

/// One receiver and this many records; every one is acknowledged and then written.
fn run(records: usize) -> Outcome<Times> {
    let receiver = Receiver::start(Who::Tidemill, What::Relp)?;
    let home = receiver.output.parent().ok_or("the output lies in a directory")?;
    let times = ask(receiver.address, &File::create(home.join("bare"))?, records)?;
    assert_eq!((times.answers.len(), times.syncs.len()), (records, records), "one answer each");
    let bytes = (records * (RECORD_BYTES + 1)) as u64;
    receiver.until("everything is written", || Ok(receiver.written()? >= bytes))?;
    assert_eq!(receiver.written()?, bytes, "what was acknowledged is written, and once");
    Ok(times)
}

/// The client. The bare file has its length before the first record, as the log's segments do.
fn ask(address: SocketAddr, bare: &File, records: usize) -> Outcome<Times> {
    bare.write_all_at(&vec![0; records * FRAME_BYTES], 0)?;
    bare.sync_all()?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n")?;
    answer(&mut stream)?;
    let (text, mut times) = (record(), Times::default());
    let start = now();
    for number in 0..records {
        let turn = APART.saturating_mul(u32::try_from(number)?);
        pause_until(start.plus(turn));
        let mut frame = format!("{} syslog {RECORD_BYTES} ", number + 2).into_bytes();
        frame.extend_from_slice(&text);
        frame.push(b'\n');
        let sent = now();
        stream.write_all(&frame)?;
        answer(&mut stream)?;
        let answered = now();
        bare.write_all_at(&[b'x'; FRAME_BYTES], (number * FRAME_BYTES) as u64)?;
        bare.sync_data()?;
        times.answers.push(answered.since(sent).as_secs_f64() * 1e3);
        times.syncs.push(now().since(answered).as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Reads exactly one answer; nothing else can be on its way.
fn answer(stream: &mut TcpStream) -> Outcome<()> {
    let (mut got, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        got.extend_from_slice(&piece[..len]);
        if let Some(len) = answer_bytes(&got) {
            assert_eq!(len, got.len(), "one answer to one question");
            return Ok(());
        }
    }
}

/// A record as a client sends it.
fn record() -> Vec<u8> {
    let words: Vec<u8> = b"word ".iter().copied().cycle().take(RECORD_BYTES - 30).collect();
    [b"<13>Jan  1 00:00:00 host app: ", &words[..]].concat()
}

/// The length of the answer at the start of these bytes, `NUMBER rsp LENGTH DATA\n`; `None` until it is complete.
fn answer_bytes(bytes: &[u8]) -> Option<usize> {
    let mut spaces = bytes.iter().enumerate().filter(|(_, byte)| matches!(byte, b' ' | b'\n'));
    let (_, (start, _), (end, _)) = (spaces.next()?, spaces.next()?, spaces.next()?);
    let data: usize = std::str::from_utf8(&bytes[start + 1..end]).ok()?.parse().ok()?;
    let len = if data == 0 { end + 1 } else { end + 1 + data + 1 };
    (bytes.len() >= len).then_some(len)
}

/// To a microsecond: the limits are printed.
fn rounded(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}
