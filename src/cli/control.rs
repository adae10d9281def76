//! `Control`: what signals do with a run: the stop, the end at once, a reload. A signal may come before the stream runs;
//! then it is acted on as soon as it does. The thread `signals` calls it, and the main thread once the stream runs.

use std::time::Duration;

use serde_json::json;

use crate::config::Pipeline;
use crate::context::{Adjuster, Running, Stopper};
use crate::error::Result;
use crate::sync::{Arc, Mutex, Poison, thread};
use crate::time::{Clock, SystemClock, join_until};

use super::args::RunArgs;
use super::messages::Messages;
use super::reload::Reload;
use super::signals::{Action, Decider, Hangup, SignalWatch};

/// How long it may take to say what a signal does.
const WORDS: Duration = Duration::from_millis(500);

/// See the module. Clones control the same run.
#[derive(Clone)]
pub(super) struct Control {
    state: Arc<Mutex<State>>,
    messages: Messages,
}

struct State {
    stop: bool,
    /// A reload was asked for before the stream ran.
    reload_asked: bool,
    /// None without a pipeline file.
    reload: Option<Reload>,
    stream: Option<(Stopper, Adjuster)>,
}

impl Control {
    /// Of a run with these options; `pipeline` is what they describe.
    pub(super) fn new(args: &RunArgs, pipeline: &Pipeline, messages: &Messages) -> Self {
        let reload = args.file.is_some().then(|| {
            let again = args.clone();
            let read = move || again.pipeline(&|name| std::env::var(name).ok());
            Reload::new(pipeline.clone(), read, args.log_level.is_some(), messages.clone())
        });
        let state = State { stop: false, reload_asked: false, reload, stream: None };
        Control { state: Arc::new(Mutex::new(state)), messages: messages.clone() }
    }

    /// Watches the signals of this process.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn watch(&self, poison: &Poison) -> Result<SignalWatch> {
        let control = self.clone();
        let decider = Decider::new(Hangup::of_this_process());
        SignalWatch::start(decider, move |action| control.act(action), poison)
    }

    /// The stream runs: what was asked for meanwhile is done.
    pub(super) fn runs(&self, running: &Running) {
        self.state.lock().stream = Some((running.stopper(), running.adjuster()));
        let (stop, reload) = {
            let mut state = self.state.lock();
            (state.stop, std::mem::take(&mut state.reload_asked))
        };
        if stop {
            running.stopper().stop();
        } else if reload {
            self.reload();
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::Stop => {
                let text =
                    "stopping: draining what was received; a second signal after 1 s stops at once";
                self.briefly(move |messages| messages.say("stopping", text, json!({})));
                let mut state = self.state.lock();
                state.stop = true;
                state.stream.iter().for_each(|(stopper, _)| stopper.stop());
            }
            Action::EndAtOnce => {
                let text = "stopped at once by a second signal; what was in flight is lost";
                self.briefly(move |messages| messages.warn(text));
            }
            Action::Reload => self.reload(),
            Action::Nothing => {}
        }
    }

    /// Says something, at most for a moment: standard error may be a pipe that nobody reads, or a file on a disk that hangs,
    /// and the next signal must be heard all the same.
    fn briefly(&self, words: impl FnOnce(&Messages) + Send + 'static) {
        let (messages, clock) = (self.messages.clone(), SystemClock::new());
        let speaking = thread::spawn("signal-words", &Poison::new(), move || words(&messages));
        // Without a thread for it nothing is said.
        let said = speaking.map(|it| join_until(clock.as_ref(), it, clock.now().plus(WORDS)));
        drop(said);
    }

    fn reload(&self) {
        let mut state = self.state.lock();
        let State { reload, stream, reload_asked, .. } = &mut *state;
        match (reload, stream) {
            (None, _) => {
                let text = "SIGHUP is ignored: this run has no pipeline file to read again";
                self.messages.say("reload_ignored", text, json!({}));
            }
            (Some(_), None) => *reload_asked = true,
            (Some(reload), Some((_, adjuster))) => reload.run(adjuster),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::cli::log::Log;
    use crate::config::Config;
    use crate::context::StreamingContext;

    /// What the run's end is, when the signal comes before or after the stream runs.
    fn check(signal_first: bool) {
        let context = StreamingContext::new(Config::new("test")).expect("good");
        context.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
        let args = RunArgs {
            from: Some("generate:".to_owned()),
            job: vec!["count".to_owned()],
            quiet: true,
            ..RunArgs::default()
        };
        let pipeline = args.pipeline(&|_| None).expect("good");
        let control = Control::new(&args, &pipeline, &Messages(Log::of(&args)));
        if signal_first {
            control.act(Action::Stop);
        }
        let running = context.start().expect("started");
        control.runs(&running);
        if !signal_first {
            control.act(Action::Stop);
        }
        running.await_termination().expect("stopped in order");
    }

    #[test]
    fn a_signal_during_the_start_stops_in_order() {
        check(true);
        check(false);
    }
}
