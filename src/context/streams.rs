//! The sources of a context as streams: each call adds one and returns its records. Runs on the thread that builds the stream;
//! opens nothing: a source is opened by the start.

use crate::config::Ack;
use crate::error::{Error, Result};
use crate::source::direct::DirectSource;
use crate::source::direct::files::FilesSource;
use crate::source::io::IoModel;
use crate::source::{Direction, Receiver, SocketSource};
use crate::stream::{DStream, Identity, SourceInfo};
use crate::sync::Arc;

use super::StreamingContext;
use super::sources::{Added, Kind, ReceiverSource};

impl StreamingContext {
    /// Adds a TCP data server at `address` (`HOST:PORT`) that is dialled, and returns its lines as text. Bytes that are not
    /// UTF-8 are replaced by U+FFFD. Everything else is at the defaults of [`SocketSource`];
    /// [`socket_text`](StreamingContext::socket_text) takes a source with options.
    ///
    /// # Errors
    /// [`Error::Usage`] if the stream runs already, or there are more than four billion sources. The server need not be there
    /// yet.
    ///
    /// ```
    /// use std::io::Write;
    /// # use tidemill::{Config, Interval, IoModel, RunLimits, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    /// let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    /// let address = server.local_addr().expect("bound").to_string();
    /// let counts = ctx.socket_lines(&address, IoModel::Nio)?.count_by_value().collect();
    /// let running = ctx.start()?;
    /// server.accept().expect("dialled").0.write_all(b"to be\nto be\n").expect("sent");
    /// running.await_termination()?;
    /// let rows: Vec<_> = counts.rows().into_iter().flat_map(|(_, rows)| rows).collect();
    /// assert_eq!(rows, [("to be".to_owned(), 2)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn socket_lines(&self, address: &str, model: IoModel) -> Result<DStream<str>> {
        self.socket_text(SocketSource::connect([address]).io_model(model))
    }

    /// Adds a TCP data server at `address` (`HOST:PORT`) that is dialled, and returns its lines as bytes, without a check or a
    /// copy.
    ///
    /// # Errors
    /// As [`socket_lines`](StreamingContext::socket_lines).
    ///
    /// ```
    /// # use tidemill::{Config, IoModel, StreamingContext, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let records = ctx.socket_records("127.0.0.1:9999", IoModel::Nio)?;
    /// records.filter(|record| record.starts_with(b"ERROR")).count().print(1);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn socket_records(&self, address: &str, model: IoModel) -> Result<DStream<[u8]>> {
        self.socket(SocketSource::connect([address]).io_model(model))
    }

    /// Adds a socket source and returns its records as bytes. With an [`identity`](SocketSource::identity) the records that a
    /// sender repeats are left out.
    ///
    /// # Errors
    /// [`Error::Usage`] if the stream runs already, or the source promises what it cannot keep: a framing that acknowledges
    /// needs a source that listens, and a state directory unless [`ack`](SocketSource::ack()) says otherwise.
    ///
    /// ```
    /// use std::io::Write;
    /// use tidemill::source::{Framing, SocketSource};
    /// # use tidemill::{Config, Interval, RunLimits, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    /// let frames = ctx.socket(SocketSource::listen("127.0.0.1:0").framing(Framing::U32))?;
    /// let lengths = frames.map(|record| record.len()).collect();
    /// let running = ctx.start()?;
    /// let mut peer = std::net::TcpStream::connect(running.local_addrs()[0]).expect("connected");
    /// peer.write_all(b"\0\0\0\x05to\nbe").expect("sent");
    /// drop(peer);
    /// running.await_termination()?;
    /// assert_eq!(lengths.rows().into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>(), [5]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn socket(&self, source: SocketSource) -> Result<DStream<[u8]>> {
        let identity = source.identity.as_ref();
        let identity = identity.and_then(|found| Identity::new(found.regex().clone()));
        let line_feeds = source.framing.holds_line_feeds();
        let (number, name) = self.add_source(Kind::Socket(source))?;
        let records = self.graph.blocks(number, &name).may_hold_line_feeds(line_feeds);
        Ok(match identity {
            Some(identity) => {
                let source = SourceInfo { source: number, name: name.into() };
                self.graph.without_repeats(&records, &source, identity)
            }
            None => records,
        })
    }

    /// Adds a socket source and returns its records as text. Bytes that are not UTF-8 are replaced by U+FFFD and counted.
    ///
    /// # Errors
    /// As [`socket`](StreamingContext::socket).
    ///
    /// ```
    /// # use tidemill::{Config, StreamingContext, source::SocketSource, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let lines = ctx.socket_text(SocketSource::listen("0.0.0.0:5514").named("syslog").rate_max(50_000))?;
    /// lines.count().print(1);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn socket_text(&self, source: SocketSource) -> Result<DStream<str>> {
        if source.identity.is_some() {
            return Ok(self.graph.as_text(&self.socket(source)?));
        }
        let line_feeds = source.framing.holds_line_feeds();
        let (number, name) = self.add_source(Kind::Socket(source))?;
        Ok(self.graph.text_blocks(number, &name).may_hold_line_feeds(line_feeds))
    }

    /// Adds a source that a receiver of your own feeds, and returns the records that it stores; see [`Receiver`]. The receiver
    /// runs on the thread `rxN-custom`, where N is the number of the source.
    ///
    /// # Errors
    /// [`Error::Usage`] if the stream runs already.
    ///
    /// ```
    /// use tidemill::ReceiverHandle;
    /// # use tidemill::{Config, Interval, RunLimits, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    /// let receiver = |handle: &ReceiverHandle| handle.store_all(["to be", "or not"]);
    /// let counts = ctx.receiver_stream("play", receiver)?.count().collect();
    /// ctx.start()?.await_termination()?;
    /// assert_eq!(counts.rows().iter().map(|(_, rows)| rows[0]).sum::<u64>(), 2);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn receiver_stream(
        &self,
        name: &str,
        receiver: impl Receiver + 'static,
    ) -> Result<DStream<[u8]>> {
        self.receiver(ReceiverSource::new(receiver).named(name))
    }

    /// Adds a source that a receiver of your own feeds, with limits; see [`ReceiverSource`].
    ///
    /// # Errors
    /// [`Error::Usage`] if the stream runs already.
    ///
    /// ```
    /// # use tidemill::{Config, ReceiverHandle, ReceiverSource, StreamingContext, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let source = ReceiverSource::new(|handle: &ReceiverHandle| handle.store(b"to be"));
    /// let records = ctx.receiver(source.named("play").rate_max(1_000))?;
    /// records.count().print(1);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn receiver(&self, source: ReceiverSource) -> Result<DStream<[u8]>> {
        let (number, name) = self.add_source(Kind::Receiver(source))?;
        Ok(self.graph.blocks(number, &name))
    }

    /// Adds the files of a directory and returns their records as bytes; see [`FilesSource`].
    ///
    /// # Errors
    /// [`Error::Usage`] if the stream runs already. The directory is looked at when the stream starts: a missing one is an error
    /// of [`start`](StreamingContext::start).
    ///
    /// ```
    /// # use tidemill::{Config, Interval, FilesSource, RunLimits, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    /// let directory = tempfile::tempdir().expect("a directory");
    /// std::fs::write(directory.path().join("a.log"), "to be\nor not\n").expect("written");
    /// let counts = ctx.files(FilesSource::new(directory.path()))?.count().collect();
    /// ctx.start()?.await_termination()?;
    /// assert_eq!(counts.rows().iter().map(|(_, rows)| rows[0]).sum::<u64>(), 2);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn files(&self, source: FilesSource) -> Result<DStream<[u8]>> {
        let line_feeds = source.may_hold_line_feeds();
        let (number, name) = self.add_files(source)?;
        Ok(self.graph.direct(number, &name).may_hold_line_feeds(line_feeds))
    }

    /// Adds the files of a directory and returns their records as text. Bytes that are not UTF-8 are replaced by U+FFFD and
    /// counted.
    ///
    /// # Errors
    /// As [`files`](StreamingContext::files).
    ///
    /// ```
    /// # use tidemill::{Config, FilesSource, StreamingContext, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let lines = ctx.files_text(FilesSource::new("/var/spool/in").named("spool"))?;
    /// lines.count().print(1);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn files_text(&self, source: FilesSource) -> Result<DStream<str>> {
        let line_feeds = source.may_hold_line_feeds();
        let (number, name) = self.add_files(source)?;
        Ok(self.graph.text_direct(number, &name).may_hold_line_feeds(line_feeds))
    }

    /// Adds the files of `directory` and returns their lines as text, with everything else at the defaults of [`FilesSource`].
    ///
    /// # Errors
    /// As [`files`](StreamingContext::files).
    ///
    /// ```
    /// # use tidemill::{Config, Interval, RunLimits, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    /// let directory = tempfile::tempdir().expect("a directory");
    /// std::fs::write(directory.path().join("a.log"), "to be\nor not\n").expect("written");
    /// let counts = ctx.files_lines(directory.path())?.count().collect();
    /// ctx.start()?.await_termination()?;
    /// assert_eq!(counts.rows().iter().map(|(_, rows)| rows[0]).sum::<u64>(), 2);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn files_lines(&self, directory: impl Into<std::path::PathBuf>) -> Result<DStream<str>> {
        self.files_text(FilesSource::new(directory))
    }

    /// Adds a replayable source of your own and returns its records as bytes; see [`DirectSource`], which has an example. The
    /// name is the one by which a later start finds the position of the source in the state directory.
    ///
    /// # Errors
    /// [`Error::Usage`] if the stream runs already. The source itself is started by [`start`](StreamingContext::start).
    ///
    /// ```
    /// use tidemill::source::DirectSource;
    /// use tidemill::{Result, StreamingContext};
    ///
    /// fn count(ctx: &StreamingContext, source: impl DirectSource + 'static) -> Result<()> {
    ///     ctx.direct_stream("orders", source)?.count().print(1);
    ///     Ok(())
    /// }
    /// ```
    pub fn direct_stream(
        &self,
        name: &str,
        source: impl DirectSource + 'static,
    ) -> Result<DStream<[u8]>> {
        let kind = Kind::Direct { name: Some(name.to_owned()), source: Arc::new(source) };
        let (number, name) = self.add_source(kind)?;
        Ok(self.graph.direct(number, &name))
    }

    fn add_files(&self, source: FilesSource) -> Result<(u32, String)> {
        let name = source.name().map(str::to_owned);
        self.add_source(Kind::Direct { name, source: Arc::new(source) })
    }

    fn add_source(&self, kind: Kind) -> Result<(u32, String)> {
        if let Kind::Socket(source) = &kind
            && source.framing.acknowledges()
        {
            self.check_acknowledging(source)?;
        }
        let mut sources = self.sources.lock();
        let number = u32::try_from(sources.len())
            .map_err(|_| Error::Usage("too many sources".to_owned()))?;
        let name = kind.name().map_or_else(|| format!("source{number}"), str::to_owned);
        if self.graph.is_running() {
            let why = "comes after the start and would never be read: add it before `start`";
            return Err(Error::Usage(format!("the source `{name}` {why}")));
        }
        sources.push(Added { name: name.clone(), kind });
        Ok((number, name))
    }

    fn check_acknowledging(&self, source: &SocketSource) -> Result<()> {
        let framing = source.framing.name();
        if matches!(source.direction, Direction::Connect(_)) {
            let why = "its peers dial in, so it needs an address to listen on";
            return Err(Error::Usage(format!("framing `{framing}` cannot connect: {why}")));
        }
        if source.ack == Ack::Log && !self.logs() {
            let why = "records are acknowledged after the sync of the log, and there is none";
            let hint =
                "give `Config::state_dir`, or acknowledge when `received` or after the `batch`";
            return Err(Error::Usage(format!("framing `{framing}`: {why}: {hint}")));
        }
        Ok(())
    }
}
