//! Sinks of a changed pipeline, and the files that they left open: another name, another place, or none.

use std::fs;

use super::Place;

/// A RELP source that acknowledges committed records, and a sink of this name; `keys` are its keys.
fn rolled(sink: &str, keys: &str) -> String {
    format!(
        "[source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\nack = 'batch'\n[job.all]\nfrom = ['in']\n\
         to = ['{sink}']\nlines = {{}}\n[sink.{sink}.file]\n{keys}\n"
    )
}

/// The test ends within these hours: the file stays open.
const OPEN: &str = "path = 'DIR/out'\nroll = { age = '9h' }";

impl Place {
    /// The names in a directory that are hidden, or are not.
    fn names(&self, directory: &str, are_hidden: bool) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(directory)).into_iter().flatten() {
            let name = entry.expect("listed").file_name().into_string().expect("text");
            let is_open = name.ends_with(".open") || name.ends_with(".manifest");
            if name.starts_with('.') == are_hidden && (is_open || !are_hidden) {
                names.push(name);
            }
        }
        names
    }

    /// The committed lines of a directory.
    fn lines_in(&self, directory: &str) -> Vec<String> {
        let read = |name: &String| fs::read_to_string(self.path(directory).join(name));
        let texts = self.names(directory, false);
        let texts: Vec<String> = texts.iter().map(|name| read(name).expect("UTF-8")).collect();
        let mut lines: Vec<String> =
            texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect();
        lines.sort();
        lines
    }

    /// A pipeline that was killed with these lines in an open file.
    fn killed_with_an_open_file(&self, sink: &str) {
        self.send_and_kill(&rolled(sink, OPEN), "", "1\n2\n");
        assert_eq!((self.names("out", true).len(), self.lines_in("out").len()), (2, 0));
    }
}

#[test]
fn an_open_file_is_finished_where_roll_was_taken_out() {
    let place = Place::new();
    place.killed_with_an_open_file("files");
    let program = place.listen(&rolled("files", "path = 'DIR/out'"), "", "3\n", &[]);
    assert_eq!(place.names("out", true), [""; 0]);
    place.stop(program);
    assert_eq!(place.lines_in("out"), ["1", "2", "3"]);
}

#[test]
fn a_sink_that_is_gone_is_asked_for_and_its_open_file_finished() {
    let place = Place::new();
    place.killed_with_an_open_file("files");
    let other = rolled("other", "path = 'DIR/more'");
    for _ in 0..2 {
        let said = place.refused(&other, "");
        let words = [
            "sink `files`: the open file ",
            "/out/.all-",
            "-0.open (4 bytes of ",
            "retired = [\"sink:files\"]",
            "renamed = { \"sink:other\" = \"sink:files\" }",
        ];
        words.iter().for_each(|words| assert!(said.contains(words), "{words}:\n{said}"));
        assert_eq!(place.names("out", true).len(), 2, "it is as it was");
    }
    let retired = "retired = ['sink:files']";
    let says = [": now all-", "WARN state: sink `files` is retired"];
    // There may be a batch that is not known as committed; the open file is reported in any case.
    place.stop(place.listen(&other, retired, "3\n", &says[..1]));
    assert_eq!((place.lines_in("out"), place.names("out", true).len()), (lines(&["1", "2"]), 0));
    assert_eq!(place.lines_in("more").last(), Some(&"3".to_owned()));
    place.stop(place.listen(&other, retired, "4\n", &[]));
    assert_eq!(place.lines_in("more").last(), Some(&"4".to_owned()));
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn a_sink_under_another_name_goes_on_in_its_directory() {
    let place = Place::new();
    place.killed_with_an_open_file("files");
    let other = rolled("other", OPEN);
    assert!(place.refused(&other, "").contains("sink `files`: the open file "));
    let renamed = "renamed = { 'sink:other' = 'sink:files' }";
    let says = ["state: sink `files` is now called sink `other`"];
    place.stop(place.listen(&other, renamed, "3\n", &says));
    assert_eq!(place.lines_in("out"), ["1", "2", "3"]);
}

#[test]
fn a_sink_that_writes_elsewhere_finishes_what_is_open_and_repeats_nothing() {
    let place = Place::new();
    place.killed_with_an_open_file("files");
    let elsewhere = rolled("files", "path = 'DIR/more'\nroll = { age = '9h' }");
    let program = place.listen(&elsewhere, "", "3\n", &["it wrote to "]);
    assert_eq!(place.names("out", true), [""; 0]);
    place.stop(program);
    assert_eq!(
        (place.lines_in("out"), place.lines_in("more")),
        (lines(&["1", "2"]), lines(&["3"]))
    );
    // Moved by hand, with its file: it is found at its new place.
    place.send_and_kill(&elsewhere, "", "4\n");
    fs::rename(place.path("more"), place.path("moved")).expect("moved");
    let moved = rolled("files", "path = 'DIR/moved'\nroll = { age = '9h' }");
    let says = ["it wrote to ", "it is not there, so nothing of it was finished"];
    place.stop(place.listen(&moved, "", "5\n", &says));
    assert_eq!(place.lines_in("moved"), ["3", "4", "5"]);
}

#[test]
fn a_directory_that_is_gone_is_told_and_breaks_nothing() {
    let place = Place::new();
    place.killed_with_an_open_file("files");
    fs::rename(place.path("out"), place.path("away")).expect("moved");
    let other = rolled("other", "path = 'DIR/more'");
    let said = place.refused(&other, "");
    assert!(said.contains("sink `files`: whatever is open in "), "{said}");
    assert!(said.contains("/out, which is not there"), "{said}");
    let retired = "retired = ['sink:files']";
    let says = ["/out: it is not there, so nothing of it was finished"];
    place.stop(place.listen(&other, retired, "3\n", &says));
    assert!(!place.path("out").exists());
    assert_eq!(place.lines_in("more").last(), Some(&"3".to_owned()));
}

#[test]
fn rows_of_an_open_file_are_missed_with_their_directory() {
    let place = Place::new();
    place.killed_with_an_open_file("files");
    // A start records its finds before it acknowledges anything.
    place.send_and_kill(&rolled("files", OPEN), "", "3\n");
    fs::rename(place.path("out"), place.path("away")).expect("moved");
    for file in [rolled("files", OPEN), rolled("files", "path = 'DIR/out'")] {
        let said = place.refused(&file, "");
        let words =
            ["/out holds nothing of the state directory ", " there: the directory was removed"];
        words.iter().for_each(|words| assert!(said.contains(words), "{words}:\n{said}"));
        assert!(!place.path("out").exists());
    }
    fs::rename(place.path("away"), place.path("out")).expect("moved");
    place.stop(place.listen(&rolled("files", OPEN), "", "4\n", &[": now all-"]));
    assert_eq!(place.lines_in("out"), ["1", "2", "3", "4"]);
}

/// Tries the remedies that the refusal names: each lets a start succeed, and none loses the open file.
#[test]
fn a_manifest_whose_head_is_damaged_has_ways_out() {
    for (path, keys) in [("out", "existing = 'append'\n"), ("more", "")] {
        let place = Place::new();
        place.write("", &rolled("files", OPEN));
        let mut program = place.program(&[]);
        let address = program.address_after("listening on").to_string();
        // Each is acknowledged after its commit, so they are two batches.
        ["1\n", "2\n"].iter().for_each(|lines| place.load(&address, lines));
        program.process.kill();
        let hidden = place.names("out", true);
        let named = |end: &str| {
            let name = hidden.iter().find(|name| name.ends_with(end)).expect("there");
            place.path("out").join(name)
        };
        let (manifest, open) = (named(".manifest"), named(".open"));
        let good = fs::read(&manifest).expect("read");
        let bad: Vec<u8> = good.iter().enumerate().map(|(at, it)| it ^ u8::from(at == 3)).collect();
        fs::write(&manifest, bad).expect("written");
        let elsewhere = format!("path = 'DIR/{path}'\n{keys}roll = {{ age = '9h' }}");
        for file in [rolled("files", OPEN), rolled("files", &elsewhere)] {
            let said = place.refused(&file, "");
            let away = format!("mv {0} {0}.damaged", manifest.display());
            let words =
                ["the head of its manifest is damaged", "Put a good copy of it back", &away];
            words.iter().for_each(|words| assert!(said.contains(words), "{words}:\n{said}"));
        }
        let mut aside = manifest.clone().into_os_string();
        aside.push(".damaged");
        fs::rename(&manifest, aside).expect("moved");
        for line in ["3\n", "4\n"] {
            place.stop(place.listen(&rolled("files", &elsewhere), "", line, &[]));
        }
        let mut kept = open.into_os_string();
        kept.push(".kept");
        assert_eq!(fs::read_to_string(kept).expect("kept"), "1\n2\n");
        assert!(place.lines_in(path).ends_with(&lines(&["3", "4"])), "{:?}", place.lines_in(path));
    }
}

/// Two sinks that a job writes to, with open files in these directories.
fn two_rolled(one: &str, two: &str) -> String {
    let sink = |name: &str, path: &str| {
        format!("[sink.{name}.file]\npath = 'DIR/{path}'\nroll = {{ age = '9h' }}\n")
    };
    format!(
        "[source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\nack = 'batch'\n[job.all]\nfrom = ['in']\n\
         to = ['one', 'two']\nlines = {{}}\n{}{}",
        sink("one", one),
        sink("two", two)
    )
}

#[test]
fn sinks_that_change_places_say_whose_files_they_finish() {
    let place = Place::new();
    place.send_and_kill(&two_rolled("a", "b"), "", "1\n");
    let says = [
        "sink `one`: it wrote to ",
        "sink `two`: it wrote to ",
        ", with 1 batch; sink `two` wrote there before",
        ", with 1 batch; sink `one` wrote there before",
    ];
    place.stop(place.listen(&two_rolled("b", "a"), "", "2\n", &says));
    assert_eq!([place.lines_in("a"), place.lines_in("b")], [["1", "2"], ["1", "2"]]);
    // And back, with their directories.
    fs::rename(place.path("a"), place.path("c")).expect("moved");
    fs::rename(place.path("b"), place.path("a")).expect("moved");
    fs::rename(place.path("c"), place.path("b")).expect("moved");
    place.stop(place.listen(&two_rolled("a", "b"), "", "3\n", &says[..2]));
    assert_eq!([place.lines_in("a"), place.lines_in("b")], [["1", "2", "3"], ["1", "2", "3"]]);
}

#[test]
fn rows_that_are_missing_are_told_before_a_sink_is_retired() {
    let place = Place::new();
    place.killed_with_an_open_file("files");
    let open = place.names("out", true).into_iter().find(|name| name.ends_with(".open"));
    fs::remove_file(place.path("out").join(open.expect("there"))).expect("removed");
    let other = rolled("other", "path = 'DIR/more'");
    let said = place.refused(&other, "");
    assert!(said.contains("of which 4 are missing)"), "{said}");
    let said = place.refused(&other, "retired = ['sink:files']");
    assert!(said.contains("is gone: 4 bytes are missing of the rows of "), "{said}");
}
