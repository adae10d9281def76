//! `Tally`: single things of one kind that came since the last message. The closed set of kinds, each with its words. Plain data.

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident { name: $name:literal, one: $one:literal, many: $many:literal, })*) => {
        /// What is counted: the closed set.
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

            /// What one is, and what several are.
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
    /// Accepting peers had to wait, mostly for want of file descriptors.
    AcceptingWaits { name: "accepting_waits", one: "accepting peers waits", many: "times accepting peers had to wait", }
    /// A record was longer than `record_bytes_max`.
    RecordOverlong { name: "record_overlong", one: "an over-long record", many: "over-long records", }
    /// A peer closed in the middle of a frame, which is dropped.
    RecordCutOff { name: "record_cut_off", one: "an unfinished record was dropped", many: "unfinished records were dropped", }
    /// A record was cut by a connection that broke, and is kept as far as it came.
    RecordBrokenOff {
        name: "record_broken_off", one: "a broken connection cut a record", many: "records were cut by broken connections",
    }
    /// An unfinished record was given up because all of them took more than they may.
    RecordGivenUp { name: "record_given_up", one: "an unfinished record was given up", many: "unfinished records were given up", }
    /// A connection was closed because a frame could not be understood.
    FrameMalformed { name: "frame_malformed", one: "a connection was closed", many: "connections were closed", }
    /// A connection that we made ended, and is made again.
    Reconnects { name: "reconnects", one: "it connects again", many: "times it connected again", }
}

/// What came since the last message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What is counted.
    pub kind: TallyKind,
    /// The name of the source.
    pub source: String,
    /// How many.
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
