//! R7: floods of connections, beyond the limit of connections and beyond that of descriptors.

use std::io::Write;
use std::net::TcpStream;

use serde_json::Value;

use crate::engine::{Engine, Holds, Honest, is_closed};
use crate::{Case, Found, ONE_AT_A_TIME, cases, expect, is_count};

/// The limit of connections, in the cases that have one.
const SEATS: usize = 40;

/// Number of descriptors in the cases with few of them.
const FEW: u64 = 70;

/// Number of peers that come and go.
const CHURN: u64 = 300;

/// Peers that stay and say `idle` once; each is counted or closed.
fn idle_peers(engine: &Engine, count: usize) -> Vec<TcpStream> {
    let peer = |_| {
        let mut stream = engine.connect();
        // A peer that was turned away already does not accept it.
        let _ = stream.write_all(b"idle\n");
        stream
    };
    (0..count).map(peer).collect()
}

/// Peers that connect and close at once, some with half a line, while the honest one sends. Returns their number.
fn churn(engine: &Engine, honest: &mut Honest) -> Result<u64, String> {
    for round in 0..CHURN {
        let mut peer = engine.connect();
        if round % 3 == 0 {
            let _ = peer.write_all(b"junk without an end");
        }
        drop(peer);
        honest.send(50)?;
    }
    Ok(CHURN)
}

/// Waits until all peers were accepted or turned away, then until the program holds as many descriptors and threads as
/// before. Returns the number of peers that this took.
fn settle(engine: &mut Engine, before: Holds) -> Result<u64, String> {
    // Peers are accepted in the order of their arrival, so one more peer comes last.
    let last = engine.connect();
    let address = last.local_addr().expect("connected").to_string();
    engine.until("the last one is taken or turned away", |engine| {
        engine.connected.contains(&address) || is_closed(&last)
    })?;
    drop(last);
    let returned = engine.until("returned", |engine| engine.holds() == before);
    returned
        .map_err(|_| format!("descriptors and threads: {before:?} became {:?}", engine.holds()))?;
    Ok(1)
}

/// More peers than places.
pub fn r7_connection_limit(case: Case) -> Found {
    let limit = format!("source.in.connections_max={SEATS}");
    let options = ["--where", "^(honest|idle)", "--set", &limit];
    let mut engine = Engine::start(case, "count", &options, None);
    let mut honest = Honest { stream: engine.connect(), lines: 0 };
    honest.send(1)?;
    engine.until_counted(1)?;
    let before = engine.holds();
    let peers = idle_peers(&engine, SEATS + 20);
    let answered = |engine: &Engine| {
        let closed = peers.iter().filter(|peer| is_closed(peer)).count() as u64;
        engine.counted() - 1 + closed >= peers.len() as u64
    };
    engine.until("each peer is taken or turned away", answered)?;
    let taken = engine.counted() - 1;
    expect(taken == SEATS as u64 - 1, || format!("connection limit: {taken} were taken"))?;
    let mut came = 1 + peers.len() as u64;
    let kept: Vec<TcpStream> = peers.into_iter().filter(|peer| !is_closed(peer)).collect();
    came += churn(&engine, &mut honest)?;
    engine.until_counted(honest.lines + taken)?;
    drop(kept);
    came += settle(&mut engine, before)?;
    came += churn(&engine, &mut honest)?;
    came += settle(&mut engine, before)?;
    // Fewer than there are places: a socket is closed a moment before its place is free.
    let late = idle_peers(&engine, SEATS / 2);
    came += late.len() as u64;
    let expected = honest.lines + taken + late.len() as u64;
    let again = engine.until("places can be had again", |engine| engine.counted() >= expected);
    again.map_err(|_| {
        let closed = late.iter().filter(|peer| is_closed(peer)).count();
        format!("places cannot be had again: {closed} of {} turned away", late.len())
    })?;
    drop(late);
    came += settle(&mut engine, before)?;
    let (counters, rows) = engine.finish()?;
    check_counts(&counters, &rows, expected, came)
}

/// More peers than descriptors.
pub fn r7_few_descriptors(case: Case) -> Found {
    let options = ["--where", "^(honest|idle)", "--set"];
    // Each thread of a pool has a descriptor too.
    let pool = if case.model == "pool" { "source.in.pool_threads=8" } else { "workers=2" };
    let mut engine = Engine::start(case, "count", &[&options[..], &[pool]].concat(), Some(FEW));
    let mut honest = Honest { stream: engine.connect(), lines: 0 };
    honest.send(1)?;
    engine.until_counted(1)?;
    let before = engine.holds();
    let peers = idle_peers(&engine, 120);
    engine.until("one is turned away", |_| peers.iter().any(is_closed))?;
    let mut came = 1 + peers.len() as u64;
    came += churn(&engine, &mut honest)?;
    drop(peers);
    came += settle(&mut engine, before)?;
    let sent = honest.lines;
    engine.until_counted(sent)?;
    let (counters, rows) = engine.finish()?;
    let opened = counters["opened"].as_u64().unwrap_or(0);
    let refused = counters["refused"].as_u64().unwrap_or(0);
    expect(refused > 0, || "refused peers are not counted".to_owned())?;
    expect(opened + refused == came, || format!("{opened} taken, {refused} refused, {came} came"))?;
    let counted: u64 = rows.iter().filter_map(|row| row[0].as_u64()).sum();
    expect((sent..sent + opened).contains(&counted), || format!("{counted} of {sent} lines"))
}

fn check_counts(counters: &Value, rows: &[Value], lines: u64, came: u64) -> Found {
    let counted: u64 = rows.iter().filter_map(|row| row[0].as_u64()).sum();
    expect(counted == lines, || format!("{counted} lines counted, {lines} sent"))?;
    let refused = counters["refused"].as_u64().unwrap_or(0);
    expect(refused >= 20, || "refused peers are not counted".to_owned())?;
    is_count(&counters["opened"], came - refused, "peers that were taken")?;
    is_count(&counters["open"], 0, "connections at the end")
}

#[test]
fn r7_the_connection_limit_holds_in_a_flood() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r7_connection_limit(case), Ok(()), "{}", case.model);
    }
}

#[test]
fn r7_a_flood_with_few_descriptors_harms_nobody() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r7_few_descriptors(case), Ok(()), "{}", case.model);
    }
}
