//! The pages as a browser shows them: Debian's chromium, driven over plain HTTP. Narrow and wide, light and dark: nothing is
//! cut off, nothing is told on the console, every plot has a title, a description and its figures as a table.

#![cfg(not(tidemill_model))]

mod driver;
mod http;
mod look;
