//! `Control`: what signals do with a run: the stop, the end at once, a reload. A signal may come before the stream runs;
//! then it is acted on as soon as it does. The thread `signals` calls it, and the main thread once the stream runs; a
//! reload runs on the thread `reload`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::config::Pipeline;
use crate::context::{Adjuster, Stopper, StreamHandle};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex, Poison, thread};

use super::args::RunArgs;
use super::messages::Messages;
use super::reload::Reload;
use super::signals::{Action, Decider, Hangup, SignalWatch};

/// The longest time for the message that says what a signal does: standard error may be a pipe that nobody reads.
const WORDS: Duration = Duration::from_millis(500);

/// See the module. Clones control the same run.
#[derive(Clone)]
pub(super) struct Control {
    state: Arc<Mutex<State>>,
    messages: Messages,
    poison: Poison,
}

struct State {
    stop: bool,
    /// A reload was asked for before the stream ran, or while one ran.
    reload_asked: bool,
    has_file: bool,
    /// None without a pipeline file, and while the thread `reload` has it.
    reload: Option<Reload>,
    stream: Option<(Stopper, Adjuster)>,
}

impl Control {
    /// Of a run with these options; `pipeline` is what they describe.
    pub(super) fn new(
        args: &RunArgs,
        pipeline: &Pipeline,
        messages: &Messages,
        poison: &Poison,
    ) -> Self {
        let reload = args.file.is_some().then(|| {
            let again = args.clone();
            let read = move || {
                again.file.iter().try_for_each(|file| may_be_read_again(file))?;
                again.pipeline(&|name| std::env::var(name).ok())
            };
            Reload::new(pipeline.clone(), read, args.log_level.is_some(), messages.clone())
        });
        let has_file = reload.is_some();
        let state = State { stop: false, reload_asked: false, has_file, reload, stream: None };
        let (state, messages) = (Arc::new(Mutex::new(state)), messages.clone());
        Control { state, messages, poison: poison.clone() }
    }

    /// Watches the signals of this process.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn watch(&self) -> Result<SignalWatch> {
        let control = self.clone();
        let decider = Decider::new(Hangup::of_this_process());
        SignalWatch::start(decider, move |action| control.act(action), &self.poison)
    }

    /// The stream runs: what was asked for meanwhile is done.
    pub(super) fn runs(&self, running: &StreamHandle) {
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
                self.messages.say("stopping", text, json!({}));
                let mut state = self.state.lock();
                state.stop = true;
                state.stream.iter().for_each(|(stopper, _)| stopper.stop());
            }
            Action::EndAtOnce => {
                let text = "stopped at once by a second signal; what was in flight is lost";
                self.messages.warn(text);
                self.messages.0.written_within(WORDS);
            }
            Action::Reload => self.reload(),
            Action::Nothing => {}
        }
    }

    /// Reads the file again, on a thread of its own: the disk may hang, and the next signal must be heard all the same. One
    /// reload at a time; what is asked for meanwhile is done once, after it.
    fn reload(&self) {
        let mut state = self.state.lock();
        if !state.has_file {
            let text = "SIGHUP is ignored: this run has no pipeline file to read again";
            self.messages.say("reload_ignored", text, json!({}));
            return;
        }
        state.reload_asked = true;
        let Some((_, adjuster)) = &state.stream else { return };
        let adjuster = adjuster.clone();
        let Some(reload) = state.reload.take() else {
            let text = "the pipeline file is still being read; it is read once more after that";
            self.messages.say("reload_waits", text, json!({}));
            return;
        };
        let control = self.clone();
        let body = move || control.reload_while_asked(reload, &adjuster);
        // It may be stuck on a disk for good, and ends with the process.
        match thread::spawn("reload", &self.poison, body) {
            Ok(thread) => thread.abandon(),
            Err(err) => self.messages.warn(&format!(
                "not reloaded, and SIGHUP is not heard from here on: no thread for it: {err}"
            )),
        }
    }

    /// The thread `reload`.
    fn reload_while_asked(&self, mut reload: Reload, adjuster: &Adjuster) {
        loop {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.reload_asked) {
                state.reload = Some(reload);
                return;
            }
            drop(state);
            reload.run(adjuster);
        }
    }
}

/// A pipe has nothing more to read, or makes who opens it wait for a writer.
fn may_be_read_again(file: &Path) -> Result<()> {
    let shown = file.display();
    match fs::metadata(file) {
        Ok(about) if !about.is_file() => Err(Error::Config(format!(
            "error: {shown} is no regular file, and only such a file is read again; restart the run instead"
        ))),
        // What else is wrong with it, the reading names.
        _ => Ok(()),
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::cli::log::Log;
    use crate::config::Config;
    use crate::context::StreamingContext;
    use crate::sync::Signal;

    /// A stream, and what a command line without a file describes.
    fn given() -> (StreamingContext, RunArgs, Pipeline) {
        let context = StreamingContext::new(Config::new("test")).expect("good");
        context.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
        let args = RunArgs {
            from: Some("generate:".to_owned()),
            job: vec!["count".to_owned()],
            quiet: true,
            ..RunArgs::default()
        };
        let pipeline = args.pipeline(&|_| None).expect("good");
        (context, args, pipeline)
    }

    /// The end of the run if the signal comes before or after the stream runs.
    fn check(signal_first: bool) {
        let (context, args, pipeline) = given();
        let control = Control::new(&args, &pipeline, &Messages(Log::of(&args)), &Poison::new());
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

    /// A disk that hangs while the file is read again holds no other signal up, and what is asked for meanwhile is done once.
    #[test]
    fn a_reload_that_hangs_holds_nothing_up() {
        let (context, args, pipeline) = given();
        let messages = Messages(Log::of(&args));
        let control = Control::new(&args, &pipeline, &messages, &Poison::new());
        let (reads, disk) = (Signal::new(), Signal::new());
        let (told, hangs, again) = (reads.clone(), disk.clone(), pipeline.clone());
        let read = move || {
            told.raise();
            hangs.wait();
            Ok(again.clone())
        };
        {
            let mut state = control.state.lock();
            state.reload = Some(Reload::new(pipeline, read, false, messages));
            state.has_file = true;
        }
        let running = context.start().expect("started");
        control.runs(&running);
        control.act(Action::Reload);
        reads.wait();
        (0..3).for_each(|_| control.act(Action::Reload));
        disk.raise();
        reads.wait();
        assert!(!control.state.lock().reload_asked, "three are one");
        control.act(Action::Stop);
        running.await_termination().expect("stopped in order");
    }

    #[test]
    fn a_signal_during_the_start_stops_in_order() {
        check(true);
        check(false);
    }
}
