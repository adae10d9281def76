//! The view from outside, for people and scrapers: a small HTTP server with metrics, health and the tables of the stream.
//!
//! ```text
//!  http (accepts) ─▶ http-N, one for each connection: bytes ─▶ request::parse ─▶ pages::answer(shown) ─▶ bytes
//! ```
//! It reads an [`Inspector`](crate::Inspector) and changes nothing: a server that fails or is flooded costs the stream
//! nothing but its bounded threads. It also answers before a stream runs, because a start may read for minutes. The library
//! starts none by itself; `tidemill run` does.

mod accept;
mod http;
mod look;
mod pages;
mod process;
pub mod request;
mod row;
mod rows;
mod shown;
mod table;
mod text;

pub use http::{HttpOptions, HttpServer};
pub use shown::Starting;
