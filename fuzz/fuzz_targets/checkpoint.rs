//! The checkpoint reader: any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| tidemill_fuzz::checkpoint(input));
