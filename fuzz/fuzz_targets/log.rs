//! The log reader: a written log with changed bytes, and any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    tidemill_fuzz::damaged_log(input);
    tidemill_fuzz::any_log(input);
});
