//! Counts the words of a TCP data server, every second: `cargo run --release --example tcp_words`.

use tidemill::{Config, Interval, IoModel, StreamingContext};

fn main() -> tidemill::Result<()> {
    let ctx = StreamingContext::new(Config::new("words").batch_interval(Interval::secs(1)))?;
    let lines = ctx.socket_lines("127.0.0.1:9999", IoModel::Nio)?;
    lines.flat_map(|line, out| out.extend(line.split_whitespace())).count_by_value().print(10);
    ctx.start()?.await_termination()
}
