//! The request parser of the HTTP server: no bytes may make it panic or claim more than it was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill::internals::dashboard::request::{Parsed, parse};

fuzz_target!(|input: &[u8]| {
    if let Parsed::Request(request) = parse(input) {
        assert!(request.len <= input.len());
        assert!(request.path.starts_with('/'));
        // The bytes after a request do not change it.
        assert_eq!(parse(&input[..request.len]), Parsed::Request(request));
    }
});
