//! Requests without sockets: bytes in; a request, "need more" or a refusal out. Pure: the fuzz target calls it.

/// The longest request head, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The most header lines of a request.
pub const HEADERS_MAX: usize = 64;

/// The longest body that is read and discarded, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The result of parsing the bytes received so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole request.
    Request(Request),
    /// The beginning of one.
    More,
    /// Nothing that can be answered; the connection is closed after the refusal.
    Refused(Refusal),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// True if the answer has no body.
    pub head_only: bool,
    /// The path, without the query.
    pub path: String,
    /// The part after the question mark; empty without one.
    pub query: String,
    /// The name in the `Host` header, without its port, in lower case.
    pub host: String,
    /// Its `Accept` headers as one, separated by commas; empty without one.
    pub accept: String,
    /// True if the peer wants to send more requests on this connection.
    pub keep_alive: bool,
    /// The length of the request in bytes, its body included.
    pub len: usize,
}

/// The reason why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// The reason, in one line for people.
    pub why: &'static str,
}

impl Request {
    /// The value of a key in the query.
    pub fn query_value(&self, key: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(name, value)| (name == key).then_some(value))
    }
}

/// Looks for a request at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Parsed::More,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return refuse(431, "the request head is too large");
        }
        Err(_) => return refuse(400, "this is no HTTP request"),
    };
    let body = match body_len(head.headers) {
        Ok(len) => len,
        Err(refusal) => return Parsed::Refused(refusal),
    };
    let len = head_len + body;
    if bytes.len() < len {
        return Parsed::More;
    }
    match request(&head, len) {
        Ok(request) => Parsed::Request(request),
        Err(refusal) => Parsed::Refused(refusal),
    }
}

fn refuse(status: u16, why: &'static str) -> Parsed {
    Parsed::Refused(Refusal { status, why })
}

fn request(head: &httparse::Request<'_, '_>, len: usize) -> Result<Request, Refusal> {
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refusal { status: 405, why: "only GET and HEAD are answered" }),
    };
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !path.starts_with('/') {
        return Err(Refusal { status: 400, why: "the target must be a path" });
    }
    let mut hosts = values(head.headers, "host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal { status: 400, why: "a request has one Host header" });
    };
    let last = |word: &str| {
        values(head.headers, "connection")
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let keep_alive = if head.version == Some(1) { !last("close") } else { last("keep-alive") };
    Ok(Request {
        head_only,
        path: path.to_owned(),
        query: query.to_owned(),
        host: host_name(host).to_ascii_lowercase(),
        accept: values(head.headers, "accept").collect::<Vec<_>>().join(","),
        keep_alive,
        len,
    })
}

/// The values of a header as text; others are left out.
fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| std::str::from_utf8(header.value).unwrap_or("").trim())
}

/// The length of the body. A body without a length in advance is refused: its end could not be found.
fn body_len(headers: &[httparse::Header<'_>]) -> Result<usize, Refusal> {
    if values(headers, "transfer-encoding").next().is_some() {
        return Err(Refusal { status: 411, why: "a body needs a Content-Length" });
    }
    let mut lengths = values(headers, "content-length");
    let Some(length) = lengths.next() else { return Ok(0) };
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || lengths.next().is_some() {
        return Err(Refusal { status: 400, why: "Content-Length is no number" });
    }
    match length.parse::<usize>() {
        Ok(length) if length <= BODY_BYTES_MAX => Ok(length),
        _ => Err(Refusal { status: 413, why: "the body is too large" }),
    }
}

/// The name of `NAME:PORT`, `[V6]:PORT` or either without a port.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(name, _)| name);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Status, or method, path, query, host, keep-alive and length, in words.
    fn check(text: &str, expected: &str) {
        let found = match parse(text.as_bytes()) {
            Parsed::More => "more".to_owned(),
            Parsed::Refused(refusal) => refusal.status.to_string(),
            Parsed::Request(r) => {
                let method = if r.head_only { "HEAD" } else { "GET" };
                let kept = if r.keep_alive { "kept" } else { "closed" };
                let rest = text.len() - r.len;
                format!("{method} {} [{}] {} {kept} {rest}", r.path, r.query, r.host)
            }
        };
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn requests() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / [] a kept 0");
        check(
            "GET /x?a=1&b HTTP/1.1\r\nhost: Local:80\r\nConnection: close\r\n\r\n",
            "GET /x [a=1&b] local closed 0",
        );
        check("HEAD /x HTTP/1.0\r\nHost: [::1]:80\r\n\r\nGET", "HEAD /x [] ::1 closed 3");
        check(
            "GET / HTTP/1.0\r\nHost: [::1]\r\nConnection: x, Keep-Alive\r\n\r\n",
            "GET / [] ::1 kept 0",
        );
        check("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxyz", "GET / [] a kept 1");
    }

    #[test]
    fn beginnings_and_refusals() {
        check("", "more");
        check("GET / HTTP/1.1\r\nHost", "more");
        check("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", "more");
        check("POST / HTTP/1.1\r\nHost: a\r\n\r\n", "405");
        check("GET / HTTP/1.1\r\n\r\n", "400");
        check("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400");
        check("GET x HTTP/1.1\r\nHost: a\r\n\r\n", "400");
        check("\x16\x03\x01\x02", "400");
        check("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "411");
        check("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400");
        check("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "413");
        check(
            &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX)),
            "431",
        );
        check(&format!("GET /{}", "x".repeat(HEAD_BYTES_MAX)), "431");
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1)), "431");
    }

    #[test]
    fn a_query_is_a_list_of_pairs() {
        let Parsed::Request(request) = parse(b"GET /?a=1&limit=20&c HTTP/1.1\r\nHost: a\r\n\r\n")
        else {
            panic!("a request")
        };
        assert_eq!(request.query_value("limit"), Some("20"));
        assert_eq!((request.query_value("c"), request.query_value("d")), (None, None));
    }

    #[test]
    fn accept_headers_are_one_list() {
        let check = |headers: &str, expected: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            let Parsed::Request(request) = parse(text.as_bytes()) else { panic!("{text:?}") };
            assert_eq!(request.accept, expected);
        };
        check("", "");
        check("Accept: text/plain;q=0.5, */*\r\n", "text/plain;q=0.5, */*");
        check("ACCEPT: text/plain\r\naccept:  */*;q=0.1\r\n", "text/plain,*/*;q=0.1");
    }

    proptest! {
        /// No bytes cause a panic. A request never claims more bytes than there are, and its beginning is no request.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..60) {
            if let Parsed::Request(request) = parse(&bytes) {
                prop_assert!(request.len <= bytes.len());
            }
            let whole = b"GET /metrics HTTP/1.1\r\nHost: localhost:4040\r\n\r\n";
            prop_assert_eq!(parse(&whole[..cut.min(whole.len() - 1)]), Parsed::More);
        }
    }
}
