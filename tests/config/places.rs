//! Places and ports that parts of a pipeline share.

use crate::{Case, check_all};

/// Two files sources, two jobs and a sink of each, and keys of the pipeline before them.
fn places(piece: &str) -> String {
    let (top, rest) = piece.split_once("---\n").unwrap_or(("", piece));
    format!(
        "{top}{rest}[job.a]\nfrom = [\"x\"]\nto = [\"o\"]\nlines = {{}}\n[job.b]\nfrom = [\"y\"]\nto = [\"p\"]\nlines = {{}}\n"
    )
}

const PLACES: &[Case] = &[
    (
        places,
        "[source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"out\"\n[sink.p.file]\npath = \"out/sub\"\n",
        "",
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"d\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"./d/\"\n[sink.p.file]\npath = \"out\"\n",
        r#"
error: source `x` reads what sink `o` writes: an endless loop
 --> p.toml:2:13
  |
2 | directory = "d"
  |             ^^^
...
6 | path = "./d/"
  |        ------ written here
  |
  = help: give them two directories, or keep the source from these files with `include` or `exclude`
"#,
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"d\"\ninclude = [\"*.log\"]\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"d\"\n[sink.p.file]\npath = \"out\"\n",
        "",
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"d\"\n\
         [sink.o.file]\npath = \"d\"\n[sink.p.file]\npath = \"out\"\n",
        r#"
warning: source `y` reads what sink `o` writes
 --> p.toml:4:13
  |
4 | directory = "d"
  |             ^^^
"#,
    ),
    (
        places,
        "state_dir = \"s\"\nspill_dir = \"spill\"\non_failure = { then = \"dead_letter\" }\n---\n\
         [source.x.files]\ndirectory = \"s\"\n[source.y.files]\ndirectory = \"dead-letter\"\n\
         [sink.o.file]\npath = \"spill/tidemill-tidemill\"\n[sink.p.file]\npath = \"x/../s\"\n",
        r#"
error: source `x` reads the files of `state_dir` as records
 --> p.toml:5:13
  |
1 | state_dir = "s"
  |             --- here
...
5 | directory = "s"
  |             ^^^
  |
  = help: give it another directory

error: source `y` reads the dead letters of this pipeline: an endless loop
 --> p.toml:7:13
  |
3 | on_failure = { then = "dead_letter" }
  |              ------------------------ written here
...
7 | directory = "dead-letter"
  |             ^^^^^^^^^^^^^
  |
  = help: give them two directories, or keep the source from these files with `include` or `exclude`

error: `spill_dir` and sink `o` use one directory
 --> p.toml:9:8
  |
2 | spill_dir = "spill"
  |             ------- the first
...
9 | path = "spill/tidemill-tidemill"
  |        ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: give each its own directory

error: `state_dir` and sink `p` use one directory
  --> p.toml:11:8
   |
 1 | state_dir = "s"
   |             --- the first
...
11 | path = "x/../s"
   |        ^^^^^^^^
   |
   = help: give each its own directory
"#,
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"out\"\n[sink.p.file]\npath = \"out\"\n",
        r#"
error: sink `o` and sink `p` use one directory
 --> p.toml:8:8
  |
6 | path = "out"
  |        ----- the first
7 | [sink.p.file]
8 | path = "out"
  |        ^^^^^
  |
  = help: let both jobs write to one sink, or give each its own
"#,
    ),
    (
        places,
        "on_failure = { then = \"dead_letter\", directory = \"out\" }\n---\n\
         [source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"out\"\n[sink.p.null]\n",
        r#"
warning: the dead letters and sink `o` use one directory
 --> p.toml:7:8
  |
7 | path = "out"
  |        ^^^^^
"#,
    ),
    (
        places,
        "http = \"127.0.0.1:5514\"\n---\n[source.x.socket]\nlisten = \"0.0.0.0:5514\"\n\
         [source.y.socket]\nlisten = \"127.0.0.1:5515\"\n[sink.o.null]\n[sink.p.null]\n",
        r#"
error: `http` and source `x` listen on one port, 5514
 --> p.toml:3:10
  |
1 | http = "127.0.0.1:5514"
  |        ---------------- the first
2 | [source.x.socket]
3 | listen = "0.0.0.0:5514"
  |          ^^^^^^^^^^^^^^
"#,
    ),
];

#[test]
fn places_that_parts_share() {
    check_all(PLACES);
}
