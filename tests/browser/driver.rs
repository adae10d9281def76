//! A browser under control, by the protocol WebDriver: chromedriver is started on a port of its own choice, and a session is a
//! window of a browser without a screen. Dropping it ends both. The test's thread.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::http;

/// The driver's program, and what installs it together with the browser.
const DRIVER: &str = "chromedriver";
const INSTALL: &str = "apt install chromium chromium-driver";

/// The width of a sheet of A4 within its margins.
const PAPER: u32 = 718;

/// A window of a browser.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// The browser's own files.
    profile: tempfile::TempDir,
    /// Held open: the driver ends if it cannot write. The little that it says has room in the pipe.
    _said: BufReader<ChildStdout>,
}

/// The colours that the reader of a page prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

impl Browser {
    /// Starts a browser; `None`, and a line that says so, if there is no driver.
    pub fn start() -> Option<Browser> {
        let driver = Command::new(DRIVER)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut driver = match driver {
            Ok(driver) => driver,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                not_run();
                return None;
            }
            Err(err) => panic!("{DRIVER}: {err}"),
        };
        let mut said = BufReader::new(driver.stdout.take().expect("it is piped"));
        let port = port(&mut said);
        let profile = tempfile::tempdir().expect("a directory");
        let mut browser = Browser { driver, port, session: String::new(), profile, _said: said };
        browser.session = browser.begin();
        Some(browser)
    }

    fn begin(&self) -> String {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            profile
        ]);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"}
        }}});
        let begun = self.ask("POST", "/session", &wanted);
        begun["sessionId"].as_str().expect("a session has a name").to_owned()
    }

    /// Asks the driver. Panics with its words if it refuses: the test has found something.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body =
            if method == "GET" || method == "DELETE" { String::new() } else { body.to_string() };
        let answer =
            http::ask(self.port, method, path, &body).unwrap_or_else(|err| panic!("{path}: {err}"));
        let value: Value = serde_json::from_str(&answer.body).expect("the driver answers in JSON");
        assert_eq!(answer.status, 200, "{path}: {}", value["value"]["message"]);
        value["value"].clone()
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}/{path}", self.session), body)
    }

    /// A command of the browser's own protocol.
    fn own(&self, command: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// Makes the window as wide as this, with these colours.
    pub fn shape(&self, width: u32, scheme: Scheme) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.own("Emulation.setDeviceMetricsOverride", size);
        let scheme = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.own("Emulation.setEmulatedMedia", json!({"media": "screen", "features": feature}));
    }

    /// Shows the page as on paper from here on, until [`Browser::shape`] is called.
    pub fn as_on_paper(&self) {
        self.shape(PAPER, Scheme::Light);
        self.own("Emulation.setEmulatedMedia", json!({"media": "print"}));
    }

    /// Opens a file.
    pub fn open(&self, file: &Path) {
        let file = file.canonicalize().expect("the file is there");
        self.command("url", &json!({"url": format!("file://{}", file.display())}));
    }

    /// The value of a script's `return`.
    pub fn script(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// What the console was told since the last call.
    pub fn console(&self) -> Vec<String> {
        let said = self.command("se/log", &json!({"type": "browser"}));
        let lines = said.as_array().cloned().unwrap_or_default();
        lines.iter().map(|line| line["message"].to_string()).collect()
    }

    /// Writes a picture of the whole page to a file, if `TIDEMILL_SCREENSHOTS` names a directory for them.
    pub fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os("TIDEMILL_SCREENSHOTS") else { return };
        let wanted = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.own("Page.captureScreenshot", wanted);
        let bytes = base64(picture["data"].as_str().unwrap_or_default());
        fs::create_dir_all(&directory).expect("a directory for pictures");
        let path = Path::new(&directory).join(format!("{name}.png"));
        fs::write(path, bytes).expect("a picture");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = http::ask(self.port, "DELETE", &format!("/session/{}", self.session), "");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that the driver says it listens on.
fn port(said: &mut impl BufRead) -> u16 {
    for line in said.lines().map_while(Result::ok) {
        if let Some((_, port)) = line.rsplit_once("on port ")
            && let Ok(port @ 1..) = port.trim().trim_end_matches('.').parse()
        {
            return port;
        }
    }
    panic!("{DRIVER} ended before it listened");
}

fn not_run() {
    let _ = writeln!(io::stdout(), "not run: {DRIVER} ({INSTALL})");
    let required = std::env::var("TIDEMILL_REQUIRE_PEERS").as_deref() == Ok("1");
    assert!(!required, "{DRIVER} is not there: {INSTALL}");
}

/// The bytes of a text in base 64.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for letter in text.bytes() {
        let Some(value) = LETTERS.iter().position(|one| *one == letter) else { continue };
        bits = (bits << 6) | u32::try_from(value).expect("less than 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).expect("a byte"));
        }
    }
    bytes
}

#[test]
fn base64_reads() {
    let check = |text: &str, expected: &str| assert_eq!(base64(text), expected.as_bytes());
    check("", "");
    check("YQ==", "a");
    check("YWI=", "ab");
    check("YWJj", "abc");
}

#[test]
fn the_driver_says_its_port() {
    let check = |said: &str, expected| assert_eq!(port(&mut said.as_bytes()), expected);
    check("Starting ChromeDriver 1 on port 0\nfine\nstarted successfully on port 4567.\n", 4567);
}
