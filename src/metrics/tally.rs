//! `Tally`: the events of one kind since the last message. The closed set of kinds, each with its words. Plain data.

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident { name: $name:literal, one: $one:literal, many: $many:literal, })*) => {
        /// The kinds of events that are counted: a closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum TallyKind {
            $($(#[$doc])* $kind,)*
        }

        impl TallyKind {
            /// Its name in events.
            pub fn name(self) -> &'static str {
                match self {
                    $(TallyKind::$kind => $name,)*
                }
            }

            /// The words for one event, and for several.
            fn words(self) -> (&'static str, &'static str) {
                match self {
                    $(TallyKind::$kind => ($one, $many),)*
                }
            }
        }
    };
}

kinds! {
    /// A peer was turned away.
    PeerTurnedAway { name: "peer_turned_away", one: "a peer was turned away", many: "peers were turned away", }
    /// Accepting peers had to wait, mostly for lack of file descriptors.
    AcceptingWaits { name: "accepting_waits", one: "accepting peers waits", many: "times accepting peers had to wait", }
    /// A record was longer than `record_bytes_max`.
    RecordOverlong { name: "record_overlong", one: "an over-long record", many: "over-long records", }
    /// A peer closed in the middle of a frame, which is dropped.
    RecordCutOff { name: "record_cut_off", one: "an unfinished record was dropped", many: "unfinished records were dropped", }
    /// A record was cut by a broken connection, and is kept as far as it arrived.
    RecordBrokenOff {
        name: "record_broken_off", one: "a broken connection cut a record", many: "records were cut by broken connections",
    }
    /// An unfinished record was given up because all of them took more memory than allowed.
    RecordGivenUp { name: "record_given_up", one: "an unfinished record was given up", many: "unfinished records were given up", }
    /// A connection was closed because of a malformed frame.
    FrameMalformed { name: "frame_malformed", one: "a connection was closed", many: "connections were closed", }
    /// A connection that we made has ended, and is made again.
    Reconnects { name: "reconnects", one: "it connects again", many: "times it connected again", }
}

/// The events of one kind at one source since the last message; at most one message every ten seconds for each kind and source.
///
/// ```
/// use tidemill::metrics::{Tally, TallyKind};
///
/// let (source, newest) = ("in".to_owned(), "127.0.0.1:5514 (connections_max)".to_owned());
/// let tally = Tally { kind: TallyKind::PeerTurnedAway, source, count: 35, newest };
/// assert!(tally.text().starts_with("source `in`: 35 peers were turned away, the last: 127.0.0.1"));
/// assert_eq!(tally.kind.name(), "peer_turned_away");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The kind of the events.
    pub kind: TallyKind,
    /// The name of the source.
    pub source: String,
    /// Number of events.
    pub count: u64,
    /// The newest of them.
    pub newest: String,
}

impl Tally {
    /// The tally as a sentence: ``source `in`: 35 peers were turned away, the last: 127.0.0.1:5514 (connections_max)``.
    pub fn text(&self) -> String {
        let ((one, many), source, newest) = (self.kind.words(), &self.source, &self.newest);
        match self.count {
            1 => format!("source `{source}`: {one}: {newest}"),
            count => format!("source `{source}`: {count} {many}, the last: {newest}"),
        }
    }
}
