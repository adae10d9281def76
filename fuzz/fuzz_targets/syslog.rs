//! The `syslog` framing against its reference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill::internals::framing::Framing;

fuzz_target!(|input: &[u8]| tidemill_fuzz::compare(Framing::Syslog, input));
