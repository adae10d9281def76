//! Records from sockets into text files: the ends of frames, and the content of one line.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::peers::are_there;
use crate::program::{Process, Program, WATCHDOG};

/// The offers at the beginning of a RELP peer's stream.
const OPEN: &str = "1 open 30 relp_version=0\ncommands=syslog\n";

/// The text files of a run whose peer sends this and closes: the lines of all batches in order.
fn text_of(framing: &str, sink: &str, sent: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out");
    let ack = if framing == "relp" { "ack = 'received'\n" } else { "" };
    let text = format!(
        "batch_interval = '20ms'\n[source.in.socket]\nlisten = '127.0.0.1:0'\nframing = '{framing}'\n{ack}\
         [job.all]\nfrom = ['in']\nto = ['files']\nlines = {{}}\n\
         [sink.files.file]\npath = '{}'\n{sink}\n",
        out.display()
    );
    let file = directory.path().join("pipeline.toml");
    fs::write(&file, text).expect("written");
    let file = file.to_str().expect("text");
    let run =
        Program::start(&["run", file, "--until-eof", "--http", "off", "--log-format", "json"]);
    let mut peer = TcpStream::connect(run.listening()).expect("it listens");
    peer.write_all(sent).expect("sent");
    peer.shutdown(std::net::Shutdown::Write).expect("open");
    peer.read_to_end(&mut Vec::new()).expect("it closes in order");
    run.until_stopped();
    let mut files: Vec<_> =
        fs::read_dir(&out).expect("made").map(|entry| entry.expect("listed").path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    // Times of equal length sort as their text does.
    files.sort();
    files.iter().flat_map(|path| fs::read(path).expect("a file")).collect()
}

fn check_text(framing: &str, sink: &str, sent: &str, expected: &str) {
    let sent = if framing == "relp" { format!("{OPEN}{sent}9 close 0\n") } else { sent.to_owned() };
    let found = text_of(framing, sink, sent.as_bytes());
    assert_eq!(String::from_utf8_lossy(&found), expected, "{framing} {sink}");
}

#[test]
fn a_record_is_one_line_of_a_text_file() {
    let forged = "one\nBATCH 2: all is well";
    let counted = format!("{} {forged}3 two", forged.len());
    check_text("octet_counted", "", &counted, "one\\nBATCH 2: all is well\ntwo\n");
    check_text("octet_counted", "line_feeds = 'keep'", &counted, &format!("{forged}\ntwo\n"));
    check_text("syslog", "", "10 <1>a\n<2>b\n<3>c\n", "<1>a\\n<2>b\n<3>c\n");
    check_text("u32", "", "\0\0\0\x03a\nb\0\0\0\x06C:\\new", "a\\nb\nC:\\\\new\n");
    check_text("relp", "", "2 syslog 3 a\nb\n3 syslog 7 C:\\temp\n", "a\\nb\nC:\\temp\n");
    check_text("lines", "", "C:\\new\nC:\\temp\n", "C:\\new\nC:\\temp\n");
    check_text("lines", "line_feeds = 'escape'", "C:\\new\nC:\\temp\n", "C:\\\\new\nC:\\temp\n");
    let rolled = "roll = { bytes = '1MiB' }";
    check_text("octet_counted", rolled, &counted, "one\\nBATCH 2: all is well\ntwo\n");
}

#[test]
fn line_feeds_that_senders_add_make_no_records() {
    check_text("syslog", "", "6 <1>one\n6 <1>two\n", "<1>one\n<1>two\n");
    check_text("syslog", "", "\n<1>one\n\n\r\n<1>two\n\n", "<1>one\n<1>two\n");
    check_text("relp", "", "2 syslog 4 one\n\n3 syslog 4 two\n\n", "one\ntwo\n");
    check_text("lines", "", "one\n\ntwo\n", "one\n\ntwo\n");
}

/// A private rsyslogd that prints each received message as `[MESSAGE]`, on two ports that were free a moment ago.
fn rsyslog(directory: &std::path::Path) -> (Program, u16, u16) {
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    let (tcp, relp) = (free(), free());
    let text = format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imtcp\")\nmodule(load=\"imrelp\")\n\
         template(name=\"raw\" type=\"string\" string=\"[%rawmsg%]\\n\")\n\
         input(type=\"imtcp\" port=\"{tcp}\" ruleset=\"out\")\ninput(type=\"imrelp\" port=\"{relp}\" ruleset=\"out\")\n\
         ruleset(name=\"out\") {{ action(type=\"omfile\" file=\"/dev/stdout\" template=\"raw\") }}\n",
        directory.display()
    );
    let config = directory.join("rsyslog.conf");
    fs::write(&config, text).expect("written");
    let mut command = Command::new("rsyslogd");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.arg("-n").arg("-f").arg(&config).arg("-i").arg(directory.join("pid"));
    (Program::of(&mut command), tcp, relp)
}

/// `socat` sends this to the port of a peer that may not listen yet, and waits for the peer's end.
fn socat(port: u16, sent: &str) {
    let to = format!("TCP:127.0.0.1:{port},retry=600,interval=0.1");
    let mut command = Command::new("socat");
    command.args(["-t", "60", "-", &to]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut process = Process(command.spawn().expect("it starts"));
    let mut input = process.0.stdin.take().expect("piped");
    input.write_all(sent.as_bytes()).expect("it reads");
    drop(input);
    assert!(process.0.wait().expect("it ends").success());
}

/// The output of `tidemill` for a peer that sends this.
fn printed(framing: &str, sent: &str) -> Vec<String> {
    let from = ["run", "--from", "tcp-listen://127.0.0.1:0", "--framing", framing, "--until-eof"];
    let to = ["--job", "lines", "--to", "json", "--log-format", "json", "--http", "off"];
    let ack = ["--set", "source.in.ack=received"];
    let ack: &[&str] = if framing == "relp" { &ack } else { &[] };
    let run = Program::start(&[&from[..], &to, ack].concat());
    socat(run.listening().port(), sent);
    let (code, out, said) = run.finish();
    assert_eq!(code, Some(0), "{}", said.join("\n"));
    let batches = out.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let rows = batches.flat_map(|batch| batch["rows"].as_array().expect("rows").clone());
    rows.map(|row| row[0].as_str().expect("text").to_owned()).collect()
}

/// The same bytes to both: frames, and the bytes that senders put between and after them.
#[test]
fn frames_are_cut_where_rsyslog_cuts_them() {
    if !are_there(&["rsyslogd", "socat"], "apt install rsyslog rsyslog-relp socat") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (rsyslog, tcp, relp) = rsyslog(directory.path());
    let theirs = |last: &str| -> Vec<String> {
        let line = || rsyslog.out.recv_timeout(WATCHDOG).expect("it prints");
        let lines = std::iter::repeat_with(line).map(|line| line[1..line.len() - 1].to_owned());
        lines.take_while(|line| line != last).collect()
    };
    let syslog = "6 <1>one\n6 <1>two\n<3>three\n\n\n7 <4>for\n5 <5>a5 <6>b\n\n\n<7>c\n1 \n<8>end\n";
    socat(tcp, syslog);
    let ours = printed("syslog", syslog);
    assert_eq!(ours.split_last().expect("records").1, theirs("<8>end"));
    let frames = ["one\n", "two", "", "\n", "for\r\n", "end"];
    let frames = (2..).zip(frames).map(|(number, data)| match data {
        "" => format!("{number} syslog 0\n"),
        data => format!("{number} syslog {} {data}\n", data.len()),
    });
    let sent = format!("{OPEN}{}9 close 0\n", frames.collect::<String>());
    socat(relp, &sent);
    let ours: Vec<String> =
        printed("relp", &sent).iter().map(|record| record.replace('\r', "#015")).collect();
    assert_eq!(ours.split_last().expect("records").1, theirs("end"));
}
