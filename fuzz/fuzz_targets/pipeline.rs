//! The pipeline file: any content is read or refused with a text, and a pipeline that was read can be resolved.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill::internals::config::Pipeline;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let env = |name: &str| (name == "PORT").then(|| "9999".to_owned());
    match Pipeline::parse(&text, "fuzz.toml", &env) {
        Ok(pipeline) => {
            let _ = pipeline.resolved();
            assert!(!pipeline.summary().is_empty());
        }
        Err(err) => assert!(err.to_string().starts_with("error"), "{err}"),
    }
});
