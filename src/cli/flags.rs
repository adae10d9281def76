//! From the options of `run` to settings of a pipeline: `--from` and its companions describe one without a file,
//! `--set` and a few others change a key of either. Whether the values are good is decided where the file's are.

use crate::config::{Given, Pipeline, Setting};
use crate::error::{Error, Result};
use crate::settings::units::Env;
use crate::sink::{KeyText, SINKS};
use crate::stream::jobs::{JOBS, JobRow};
use crate::wording::either;

use super::args::{RunArgs, ValidateArgs, job_flags, sink_forms};

/// Names that a pipeline without a file implies.
const SOURCE: &str = "in";
const SINK: &str = "out";

impl RunArgs {
    /// The pipeline of the file or of the options, checked; `env` gives the value of a variable.
    ///
    /// # Errors
    /// [`Error::Usage`] if the options are wrong, [`Error::Config`] if the file is.
    pub fn pipeline(&self, env: &Env<'_>) -> Result<Pipeline> {
        let mut settings = match &self.file {
            Some(_) => Vec::new(),
            None => self.described()?,
        };
        let changes = [
            ("--every", "batch_interval", &self.every),
            ("--state-dir", "state_dir", &self.state_dir),
            ("--http", "http", &self.http),
        ];
        for (flag, key, value) in changes {
            if let Some(value) = value {
                settings.push(text(flag, value, &[key], value));
            }
        }
        settings.extend(sets(&self.set)?);
        let pipeline = match &self.file {
            Some(file) => Pipeline::read(file, env, &settings)?,
            None => Pipeline::from_settings(&settings)?,
        };
        match pipeline.endless().first() {
            Some(name) if self.until_eof => Err(Error::Usage(format!(
                "error: `--until-eof` would never end: the source `{name}` has neither `records` nor `file`"
            ))),
            _ => Ok(pipeline),
        }
    }

    /// The settings that describe a whole pipeline without a file.
    fn described(&self) -> Result<Vec<Setting>> {
        let from = self.from.as_deref().unwrap_or_default();
        let (kind, mut settings) = source(from)?;
        for (flag, key, value) in
            [("--io", "io_model", &self.io), ("--framing", "framing", &self.framing)]
        {
            if let Some(value) = value {
                settings.push(text(flag, value, &["source", SOURCE, kind, key], value));
            }
        }
        let mut names: Vec<&str> = Vec::new();
        for typed in &self.job {
            let (name, value) = match typed.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (typed.as_str(), None),
            };
            if names.contains(&name) {
                return Err(usage(
                    "--job",
                    typed,
                    "this kind of job is given twice",
                    "use a pipeline file",
                ));
            }
            names.push(name);
            settings.extend(self.job_settings(typed, name, value)?);
        }
        settings.extend(sink(self.to.as_deref().unwrap_or("console"))?);
        Ok(settings)
    }

    fn job_settings(&self, typed: &str, name: &str, value: Option<&str>) -> Result<Vec<Setting>> {
        let path = |key| ["job", name, key];
        let mut settings = vec![
            setting("--job", typed, &path("from"), Given::List(vec![SOURCE.to_owned()])),
            setting("--job", typed, &path("to"), Given::List(vec![SINK.to_owned()])),
            setting("--job", typed, &path(name), Given::Table),
        ];
        settings.extend(job_value(typed, name, value)?);
        let rest = [
            ("--where", "where", &self.filter),
            ("--window", "window", &self.window),
            ("--slide", "slide", &self.slide),
        ];
        for (flag, key, value) in rest {
            if let Some(value) = value {
                settings.push(text(flag, value, &path(key), value));
            }
        }
        Ok(settings)
    }
}

impl ValidateArgs {
    /// The pipeline of the file, checked as at the start of `run`.
    ///
    /// # Errors
    /// [`Error::Usage`] if `--set` is wrong, [`Error::Config`] if the file is.
    pub fn pipeline(&self, env: &Env<'_>) -> Result<Pipeline> {
        Pipeline::read(&self.file, env, &sets(&self.set)?)
    }
}

/// The setting that a job's value makes, if it has one. A kind that is unknown and has none is left to the reader of pipelines,
/// which suggests the nearest.
fn job_value(typed: &str, name: &str, value: Option<&str>) -> Result<Option<Setting>> {
    let wrong = |title: String, hint: String| Err(usage("--job", typed, &title, &hint));
    let known = JOBS.iter().find(|row| row.name == name);
    match (known, known.and_then(|row| row.value.as_ref()), value) {
        (_, Some(takes), Some(value)) => {
            let path = ["job", name, name, takes.key];
            Ok(Some(setting("--job", typed, &path, (takes.given)(value.to_owned()))))
        }
        (Some(row), Some(takes), None) if takes.required => {
            wrong(format!("`{name}` needs a {}", takes.key), format!("write '{}'", row.flag()))
        }
        (Some(_), None, Some(_)) => {
            let valued = JOBS.iter().filter(|row| row.value.is_some());
            let valued = valued.map(JobRow::flag).collect::<Vec<_>>().join(" and ");
            wrong(format!("`{name}` takes no value"), format!("only {valued} do"))
        }
        (None, _, Some(_)) => {
            wrong(format!("there is no job `{name}`"), format!("a job is {}", job_flags()))
        }
        (_, _, None) => Ok(None),
    }
}

/// The kind of the source that `--from` names, and its settings.
fn source(from: &str) -> Result<(&'static str, Vec<Setting>)> {
    let at = |kind, key, value| setting("--from", from, &["source", SOURCE, kind, key], value);
    if let Some(peers) = from.strip_prefix("tcp://") {
        let peers = peers.split(',').map(str::to_owned).collect();
        return Ok(("socket", vec![at("socket", "connect", Given::List(peers))]));
    }
    if let Some(address) = from.strip_prefix("tcp-listen://") {
        return Ok(("socket", vec![at("socket", "listen", Given::Text(address.to_owned()))]));
    }
    if let Some(directory) = from.strip_prefix("files://") {
        return Ok(("files", vec![at("files", "directory", Given::Text(directory.to_owned()))]));
    }
    let Some(keys) = from.strip_prefix("generate:") else {
        let hint = "write tcp://HOST:PORT, tcp-listen://ADDR:PORT, files://DIR or generate:";
        return Err(usage("--from", from, "unknown kind of source", hint));
    };
    let mut settings = vec![setting("--from", from, &["source", SOURCE, "generate"], Given::Table)];
    for key in keys.split(',').filter(|key| !key.is_empty()) {
        let Some((key, value)) = key.split_once('=') else {
            let hint = "write generate:rate=1000,records=10000";
            return Err(usage("--from", from, &format!("`{key}` is not KEY=VALUE"), hint));
        };
        settings.push(at("generate", key, Given::Toml(value.to_owned())));
    }
    Ok(("generate", settings))
}

/// The settings of the sink that `--to` names.
fn sink(to: &str) -> Result<Vec<Setting>> {
    let named = SINKS.iter().find_map(|kind| {
        let forms = kind.short_forms.iter();
        forms
            .filter_map(|form| Some((form.settings)(form.value_of(to)?)))
            .next()
            .map(|set| (kind, set))
    });
    let Some((kind, set)) = named else {
        let forms: Vec<_> =
            sink_forms().map(|form| format!("{}{}", form.begins, form.value)).collect();
        return Err(usage("--to", to, "unknown sink", &format!("write {}", either(&forms))));
    };
    let path = ["sink", SINK, kind.name];
    if set.is_empty() {
        return Ok(vec![setting("--to", to, &path, Given::Table)]);
    }
    let set = set.into_iter().map(|KeyText { key, text }| {
        setting("--to", to, &[&path[..], &[key]].concat(), Given::Text(text))
    });
    Ok(set.collect())
}

/// The settings of `--set KEY=VALUE`. A value that is not TOML is a string.
fn sets(typed: &[String]) -> Result<Vec<Setting>> {
    let read = |typed: &String| {
        let Some((key, value)) = typed.split_once('=') else {
            let hint = "write KEY=VALUE, as in source.lines.io_model=bio";
            return Err(usage("--set", typed, "there is no `=`", hint));
        };
        let path: Vec<_> = key.trim().split('.').map(str::trim).collect();
        let setting = setting("--set", typed, &path, Given::Toml(value.trim().to_owned()));
        Ok(Setting { makes: false, ..setting })
    };
    typed.iter().map(read).collect()
}

fn text(flag: &str, typed: &str, path: &[&str], value: &str) -> Setting {
    setting(flag, typed, path, Given::Text(value.to_owned()))
}

fn setting(flag: &str, typed: &str, path: &[&str], value: Given) -> Setting {
    let path = path.iter().map(|key| (*key).to_owned()).collect();
    Setting { flag: format!("{flag} {typed}"), path, value, makes: true }
}

/// A wrong option, in the look of all other errors.
fn usage(flag: &str, typed: &str, title: &str, hint: &str) -> Error {
    Error::Usage(format!("error: {title}\n --> command line: {flag} {typed}\n  = help: {hint}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        args: RunArgs,
    }

    fn pipeline(line: &str) -> Result<Pipeline> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        Run::try_parse_from(words).expect("good options").args.pipeline(&|_| None)
    }

    /// Options are the same as this file.
    fn check_same(line: &str, file: &str) {
        let expected = Pipeline::parse(file, "p.toml", &|_| None).expect("a good file");
        // An option may write out a default.
        let given = expected.given.clone();
        let found = Pipeline { given, ..pipeline(line).expect("a good line") };
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn options_are_the_same_as_a_file() {
        check_same(
            "--from tcp://127.0.0.1:9999 --job wordcount --every 2s",
            "batch_interval = '2s'\n[source.in.socket]\nconnect = ['127.0.0.1:9999']\n\
            [job.wordcount]\nfrom = ['in']\nto = ['out']\nwordcount = {}\n[sink.out.console]\n",
        );
        check_same(
            "--from tcp-listen://[::1]:5514 --io bio --framing lines --job grep=a=[$]|^c$ --to json --http off",
            "http = 'off'\n[source.in.socket]\nlisten = '[::1]:5514'\nio_model = 'bio'\nframing = 'lines'\n\
            [job.grep]\nfrom = ['in']\nto = ['out']\ngrep = { pattern = 'a=[$]|^c$' }\n\
            [sink.out.console]\nformat = 'json'\n",
        );
        check_same(
            "--from files:///var/log/in --framing u32 --job lines",
            "[job.lines]\nfrom = ['in']\nto = ['out']\nlines = {}\n[sink.out.console]\n\
             [source.in.files]\ndirectory = '/var/log/in'\nframing = 'u32'",
        );
        check_same(
            "--from generate:rate=5,records=7 --job topk=3 --job count --to null --until-eof --set workers=2",
            "workers = 2\n[source.in.generate]\nrate = 5\nrecords = 7\n[job.topk]\nfrom = ['in']\nto = ['out']\n\
            topk = { n = 3 }\n[job.count]\nfrom = ['in']\nto = ['out']\ncount = {}\n[sink.out.null]\n",
        );
        check_same(
            "--from tcp://a:1,b:2 --job topk --where ^x --set job.topk.topk.field=2 --set source.in.io_model=bio",
            "[source.in.socket]\nconnect = ['a:1', 'b:2']\nio_model = 'bio'\n\
            [job.topk]\nfrom = ['in']\nto = ['out']\nwhere = '^x'\n\
            topk = { field = 2 }\n[sink.out.console]\n",
        );
    }

    fn check(line: &str, expected: &str) {
        let err = pipeline(line).expect_err("bad options");
        assert_eq!(err.exit_code(), 2, "{line}: {err}");
        assert_eq!(err.to_string(), expected, "{line}");
    }

    /// Options, and the error that they give.
    const WRONG: &[(&str, &str)] = &[
        (
            "--from udp://a:1 --job count",
            "error: unknown kind of source\n\
            \x20--> command line: --from udp://a:1\n\
            \x20 = help: write tcp://HOST:PORT, tcp-listen://ADDR:PORT, files://DIR or generate:",
        ),
        (
            "--from tcp://a --job count",
            "error: `connect` takes HOST:PORT: the port is missing\n\
            \x20--> command line: --from tcp://a",
        ),
        (
            "--from tcp://a:1 --job wordcunt",
            "error: unknown key `wordcunt` of job `wordcunt`\n\
            \x20--> command line: --job wordcunt\n\
            \x20 = help: did you mean `wordcount`?",
        ),
        (
            "--from tcp://a:1 --job sql=select",
            "error: there is no job `sql`\n\
            \x20--> command line: --job sql=select\n\
            \x20 = help: a job is count, lines, wordcount, latency, distinct, grep=REGEX or topk=N",
        ),
        (
            "--from tcp://a:1 --job count=5",
            "error: `count` takes no value\n\
            \x20--> command line: --job count=5\n\
            \x20 = help: only grep=REGEX and topk=N do",
        ),
        (
            "--from tcp://a:1 --job grep",
            "error: `grep` needs a pattern\n\
            \x20--> command line: --job grep\n\
            \x20 = help: write 'grep=REGEX'",
        ),
        (
            "--from tcp://a:1 --job grep=(",
            "error: `pattern` is not a regular expression: unclosed group\n\
            \x20--> command line: --job grep=(",
        ),
        (
            "--from tcp://a:1 --job count --job count",
            "error: this kind of job is given twice\n\
            \x20--> command line: --job count\n\
            \x20 = help: use a pipeline file",
        ),
        (
            "--from tcp://a:1 --job count --every 1",
            "error: `batch_interval` needs a unit of time: no unit\n\
            \x20--> command line: --every 1\n\
            \x20 = help: units of time are ms, s, m, h and d: write `\"1ms\"` or `\"1s\"`",
        ),
        (
            "--from tcp://a:1 --job count --io noi",
            "error: unknown io model `noi`\n\
            \x20--> command line: --io noi\n\
            \x20 = help: did you mean `nio`?",
        ),
        (
            "--from tcp://a:1 --job count --to screen",
            "error: unknown sink\n\
            \x20--> command line: --to screen\n\
            \x20 = help: write console, json, null, file://DIR, sqlite://FILE or unix://SOCKET",
        ),
        (
            "--from tcp://a:1 --job count --http 4040",
            "error: `http` takes ADDR:PORT or `off`: the port is missing\n\
            \x20--> command line: --http 4040",
        ),
        (
            "--from generate:rate --job count",
            "error: `rate` is not KEY=VALUE\n\
            \x20--> command line: --from generate:rate\n\
            \x20 = help: write generate:rate=1000,records=10000",
        ),
        (
            "--from generate: --job count --until-eof",
            "error: `--until-eof` would never end: the source `in` has neither `records` nor `file`",
        ),
        (
            "--from generate: --job count --set workers",
            "error: there is no `=`\n\
            \x20--> command line: --set workers\n\
            \x20 = help: write KEY=VALUE, as in source.lines.io_model=bio",
        ),
        (
            "--from generate: --job count --set source.inn.rate=1",
            "error: there is no source `inn`\n\
            \x20--> command line: --set source.inn.rate=1\n\
            \x20 = help: did you mean `in`?",
        ),
    ];

    #[test]
    fn errors_name_the_option() {
        for (line, expected) in WRONG {
            check(line, expected);
        }
    }
}
