//! The HTTP server of a run: its address, and its answers before there is a stream.

use std::net::TcpListener;

use crate::program::Program;

#[test]
fn a_taken_address_is_found_before_any_source_is_opened() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let from = ["run", "--from", "tcp-listen://127.0.0.1:0", "--job", "count"];
    let run = Program::start(&[&from[..], &["--http", &address]].concat());
    let (code, out, err) = run.finish();
    let err = err.join("\n");
    assert_eq!((code, out.len()), (Some(1), 0), "{err}");
    assert!(err.contains(&format!("cannot listen for HTTP on {address}")), "{err}");
    assert!(err.contains("--http off") && !err.contains("listening on"), "{err}");
}
