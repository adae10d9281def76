//! The receiver of a soak, in a process of its own: a word count, and the batches of each second. Main thread of the child;
//! batches are noted on the thread `events`.

use std::io::Write;
use std::time::Duration;

use crate::config::Config;
use crate::context::{RunLimits, SocketSource, StreamingContext};
use crate::error::Result;
use crate::lab::protocol::{self, Second, Soaked, Soaking};
use crate::metrics::Event;
use crate::settings::units::as_f64;
use crate::sink::{Null, SharedSink};
use crate::stream::jobs::{JobOptions, JobOutput, WordCount};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Interval, SystemClock};

/// Counts words until every peer has closed.
///
/// # Errors
/// If the stream fails or the parent is gone.
pub(in crate::lab) fn receive(soaking: &Soaking, out: &mut dyn Write) -> Result<Soaked> {
    let model = protocol::io_model(&soaking.model)?;
    let batch = Interval::millis(soaking.batch_ms.max(1));
    let ctx = StreamingContext::new(Config::new("soak").batch_interval(batch))?;
    let stream = ctx.socket(SocketSource::listen("127.0.0.1:0").io_model(model))?;
    let sinks = vec![SharedSink::new(Null)];
    WordCount.attach(&stream, JobOutput::of_batches("words", sinks));
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let clock = SystemClock::new();
    let seconds: Arc<Mutex<Vec<Second>>> = Arc::default();
    let (noted, started) = (Arc::clone(&seconds), clock.now());
    ctx.add_listener(move |event: &Event| {
        if let Event::BatchCompleted { scheduling_delay, processing, .. } = event {
            let second = clock.now().since(started).as_secs();
            note(&mut noted.lock(), second, *processing, *scheduling_delay);
        }
    });
    let running = ctx.start()?;
    let stopper = running.stopper();
    protocol::listen_to_parent(|| (), move || stopper.stop())?;
    protocol::say_ready(out, &running)?;
    let (report, outcome) = running.finish();
    outcome?;
    let seconds = std::mem::take(&mut *seconds.lock());
    Ok(Soaked { records: report.records, seconds })
}

fn note(seconds: &mut Vec<Second>, second: u64, processing: Duration, delay: Duration) {
    let Ok(at) = usize::try_from(second) else { return };
    if seconds.len() <= at {
        seconds.resize(at + 1, Second::default());
    }
    let noted = &mut seconds[at];
    noted.batches += 1;
    let share = 1.0 / as_f64(noted.batches);
    noted.processing_us += (processing.as_secs_f64() * 1e6 - noted.processing_us) * share;
    noted.delay_us += (delay.as_secs_f64() * 1e6 - noted.delay_us) * share;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_gather_batches() {
        let mut seconds = Vec::new();
        for (second, micros) in [(0, 100), (0, 300), (2, 50)] {
            note(&mut seconds, second, Duration::from_micros(micros), Duration::ZERO);
        }
        assert_eq!(seconds.len(), 3);
        assert!((seconds[0].processing_us - 200.0).abs() < 1e-6 && seconds[1].batches == 0);
    }
}
