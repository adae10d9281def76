//! `Survey`: what lies in an output directory at a start, and whether the owner that asks may write there.
//!
//! ```text
//! other ledgers, other manifests ──▶ somebody else's      ─┐
//! own ledger: keys that the state does not know ─▶ newer   ├─▶ refused with the remedies, or written beside (`append`)
//!             less than the state knows of ─▶ older        │
//! no ledger, files that look like output ─▶ nobody's       │   a state from before identities takes over what it may know
//! nothing, and the state made commits here ─▶ gone        ─┘
//! ```
//! It changes nothing.

use super::hidden::Hidden;
use super::ledger::{LedgerFile, Unproven};
use super::names::{self, Label};
use crate::error::{Error, Result};
use crate::owner::{Lack, Newest, OutputMark, Owner, PlaceWords};
use crate::sink::formatted::FileFormat;
use crate::storage::Storage;
use crate::sync::Arc;
use crate::wording::count;

/// A file that looks like output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sink) struct Data {
    pub(in crate::sink) name: String,
    pub(in crate::sink) label: Label,
}

/// See the module.
#[derive(Debug)]
pub(in crate::sink) struct Survey {
    dir: String,
    /// The same, as [`Sink::place`](crate::sink::Sink::place) says it.
    place: Option<String>,
    /// The memory of this owner.
    pub(in crate::sink) own: Option<LedgerFile>,
    /// True if the file of its last commit is not there.
    pub(in crate::sink) is_undone: bool,
    /// Who else has output here.
    others: Vec<String>,
    /// Rows of them in open files that their owners have to finish, in words.
    pub(in crate::sink) others_open: Vec<String>,
    /// Files that gather batches: those of this owner, those of nobody, those of others.
    pub(in crate::sink) own_hidden: Vec<Hidden>,
    pub(in crate::sink) nobodys_hidden: Vec<Hidden>,
    pub(in crate::sink) data: Vec<Data>,
}

impl Survey {
    /// Looks at a directory, for this owner.
    ///
    /// # Errors
    /// If something cannot be read, or is damaged.
    pub(in crate::sink) fn of(storage: &Arc<dyn Storage>, owner: &Owner) -> Result<Survey> {
        Survey::at(storage, owner, None)
    }

    /// The same of the place of a sink.
    ///
    /// # Errors
    /// As [`of`](Survey::of).
    pub(in crate::sink) fn at(
        storage: &Arc<dyn Storage>,
        owner: &Owner,
        place: Option<String>,
    ) -> Result<Survey> {
        let fail =
            |err| Error::io(format!("cannot read the output directory {}", storage.name()), err);
        let names = storage.list().map_err(fail)?;
        let mut survey = Survey {
            dir: storage.name(),
            place,
            own: None,
            is_undone: false,
            others: Vec::new(),
            others_open: Vec::new(),
            own_hidden: Vec::new(),
            nobodys_hidden: Vec::new(),
            data: Vec::new(),
        };
        for name in &names {
            if let Some(identity) = names::of_ledger(name) {
                let ledger = LedgerFile::read(storage, name)?;
                match ledger.identity() {
                    found if found != identity => {
                        return Err(Error::Failed(format!(
                            "{}/{name} is the ledger of another state ({found}): give it its own name back, or remove it",
                            survey.dir
                        )));
                    }
                    found if found == owner.identity => survey.own = Some(ledger),
                    _ if ledger.has_something() => survey.others.push(ledger.title()),
                    _ => {}
                }
            }
            if let Some(label) = Label::of_data(name) {
                survey.data.push(Data { name: name.clone(), label });
            }
        }
        for hidden in Hidden::find(storage, &names)? {
            survey.add_hidden(hidden, owner);
        }
        survey.is_undone = survey.undone(storage.as_ref(), owner).map_err(fail)?;
        Ok(survey)
    }

    fn add_hidden(&mut self, hidden: Hidden, owner: &Owner) {
        // What has no batch that counts is nobody's, unless its name or the ledger beside it says otherwise.
        let tag = hidden.label().tag.as_ref();
        let is_own = tag.map_or(self.own.is_some(), |tag| *tag == owner.identity.short());
        match hidden.identity() {
            Some(identity) if identity == owner.identity => self.own_hidden.push(hidden),
            Some(identity) => {
                let title = format!("a state directory with the identity {}", identity.short());
                if let Some(bytes) = hidden.end_of_rows() {
                    self.others_open.push(format!(
                        "{}/{} stays hidden, with {} of {}: only a run of {title} gives it a name",
                        self.dir,
                        hidden.name(),
                        count(bytes, "byte"),
                        count(hidden.entries().len(), "batch")
                    ));
                }
                if !hidden.entries().is_empty()
                    && !self.others.iter().any(|other| other.contains(&identity.short()))
                {
                    self.others.push(title);
                }
            }
            None if is_own => self.own_hidden.push(hidden),
            None if tag.is_none() => self.nobodys_hidden.push(hidden),
            None => {}
        }
    }

    /// True if the last commit of the own ledger did not get as far as the file's name.
    fn undone(&self, storage: &dyn Storage, owner: &Owner) -> std::io::Result<bool> {
        let Some(ledger) = &self.own else { return Ok(false) };
        let Some((book, unproven)) = ledger.unproven() else { return Ok(false) };
        let mark = ledger.mark();
        if owner.commits_of(mark.output) >= mark.commits {
            return Ok(false);
        }
        let label = unproven_label(&book.job, book.part, unproven, owner);
        let end = FileFormat::of_number(unproven.end).map_or("txt", FileFormat::end);
        let size = storage.size_of(&label.single(end))?;
        let is_there =
            size == Some(unproven.size) && storage.size_of(&label.hidden("aside"))?.is_none();
        Ok(!is_there)
    }

    /// Says whether the owner may write here.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(in crate::sink) fn judge(&self, owner: &Owner, appends: bool) -> Result<()> {
        if appends {
            return Ok(());
        }
        let refused =
            self.somebody_elses(owner).or_else(|| self.newer(owner)).or_else(|| self.older(owner));
        let refused = refused.or_else(|| self.nobodys(owner)).or_else(|| self.gone(owner));
        refused.map_or(Ok(()), |why| Err(Error::Failed(why)))
    }

    fn somebody_elses(&self, owner: &Owner) -> Option<String> {
        let other = self.others.first()?;
        Some(format!(
            "{} holds output of {other}, and {owner} is another one. {}",
            self.dir,
            remedies("the state directory of that output", owner)
        ))
    }

    /// All entries of the own ledger and the own open files must be batches that this state planned.
    fn newer(&self, owner: &Owner) -> Option<String> {
        let in_ledger = self.own.iter().flat_map(|ledger| ledger.keys());
        let in_ledger = in_ledger.map(|(book, key)| (book.job.as_str(), key));
        let of_hidden = |hidden: &'_ Hidden| {
            let job = hidden.label().job.clone();
            hidden.entries().iter().map(move |entry| (job.clone(), entry.key)).collect::<Vec<_>>()
        };
        let in_files: Vec<_> = self.own_hidden.iter().flat_map(of_hidden).collect();
        let in_files = in_files.iter().map(|(job, key)| (job.as_str(), key));
        let (job, key) = in_ledger.chain(in_files).find(|(_, key)| !owner.knows(key))?;
        let right = remedies("the state directory of the same moment", owner);
        Some(format!("{}. {right}", owner.unknown_text(&self.dir, job, key)))
    }

    /// Looks for something that this state knows of and the own output lacks.
    pub(in crate::sink) fn lacks_commits(&self, owner: &Owner) -> bool {
        self.lack(owner).is_some()
    }

    /// The progress of the own output; none if there is nothing of it.
    fn mark(&self) -> Option<OutputMark> {
        let ledger = self.own.as_ref()?;
        let hidden: u64 = self.own_hidden.iter().map(|hidden| hidden.commits(Some(ledger))).sum();
        let mark = ledger.mark();
        Some(OutputMark { commits: mark.commits - u64::from(self.is_undone) + hidden, ..mark })
    }

    /// True if a commit is in the own output.
    fn has(&self, newest: &Newest) -> bool {
        let job = names::safe(&newest.job);
        let book = self.own.as_ref().and_then(|ledger| ledger.book(&job, newest.part));
        let mut hidden = self.own_hidden.iter().filter(|hidden| {
            let label = hidden.label();
            label.job == job && label.part == newest.part
        });
        book.is_some_and(|book| book.keys().any(|key| newest.is(key)))
            || hidden.any(|hidden| hidden.entries().iter().any(|entry| newest.is(&entry.key)))
    }

    fn lack(&self, owner: &Owner) -> Option<Lack> {
        owner.lack(self.place.as_deref(), self.mark(), |newest| self.has(newest))
    }

    fn lack_text(&self, lack: &Lack, owner: &Owner) -> String {
        let hidden = match lack {
            Lack::Last(_) | Lack::Newest(_) => "",
            Lack::All(_) => ", or its hidden files (their names begin with a dot) were",
            Lack::Commits(..) => {
                ", or hidden files (their names begin with a dot) were removed from it or are damaged"
            }
        };
        let text =
            owner.lack_text(lack, PlaceWords { title: &self.dir, thing: "directory", hidden });
        let found = self.own_hidden.iter().find_map(|open| open.damage(&self.dir));
        match found {
            Some(damage) => format!("{text}. {damage}"),
            None => text,
        }
    }

    /// The own output must have every commit that this state knows of.
    fn older(&self, owner: &Owner) -> Option<String> {
        let lack = self.lack(owner).filter(|lack| !matches!(lack, Lack::All(_)))?;
        let right = remedies("the output of the same moment", owner);
        Some(format!("{}. {right}", self.lack_text(&lack, owner)))
    }

    /// Nothing is there, and there was something.
    fn gone(&self, owner: &Owner) -> Option<String> {
        let lack = self.lack(owner).filter(|lack| matches!(lack, Lack::All(_)))?;
        Some(format!(
            "{}. Put the output back, hidden files too. To go on without it, give the sink another directory, or set \
             `existing = \"append\"`, which one start is enough of: then nothing that was committed is written again",
            self.lack_text(&lack, owner)
        ))
    }

    /// The commits that are gone with the output that was here, in words; none if it is here, or there was none.
    pub(in crate::sink) fn gone_text(&self, owner: &Owner) -> Option<String> {
        match self.own {
            Some(_) => None,
            None => owner.gone_text(&self.dir, self.place.as_deref()),
        }
    }

    /// Without a ledger, files that look like output are nobody's, unless a state from before identities may take them over.
    fn nobodys(&self, owner: &Owner) -> Option<String> {
        if !owner.has_state() {
            return None;
        }
        let has_ledger = self.own.is_some();
        let known = |time| owner.adoption.as_ref().is_some_and(|adoption| adoption.knows(time));
        let strange =
            |label: &Label| label.tag.is_some() || !known(label.first) || !known(label.last);
        // Beside a ledger they do no harm: they are never taken for committed, and never written over.
        let data = self.data.iter().filter(|data| !has_ledger && strange(&data.label));
        let data = data.map(|data| data.name.clone());
        let is_strange =
            |hidden: &&Hidden| hidden.entries().iter().any(|entry| !known(entry.key.time));
        // An open file of this owner without a ledger: the ledger was there before it.
        let own = self.own_hidden.iter();
        let own = own.filter(|hidden| !has_ledger && !hidden.entries().is_empty());
        let hidden = self.nobodys_hidden.iter().filter(is_strange).chain(own);
        let name = data.chain(hidden.map(Hidden::name)).next()?;
        let why = match owner.adoption {
            Some(_) => "no batch of it has this time, so it was not taken over",
            None => {
                "it was written without a `state_dir`, or before state directories had an identity, or its ledger (a file \
                 that begins with .tidemill-) was removed"
            }
        };
        // Without them nothing would be there.
        let is_gone = self.lack(owner).is_some();
        let first = if is_gone { "Give" } else { "Move these files away, or give" };
        Some(format!(
            "{} holds output that {owner} did not write, such as {name}: {why}. {}",
            self.dir,
            remedies_from(first, "the output of the same moment, hidden files too", owner)
        ))
    }

    /// The output beside which new files are written, in words.
    pub(in crate::sink) fn beside(&self) -> Option<String> {
        let others = self.others.first().cloned();
        let nobodys = || {
            let name = self
                .data
                .iter()
                .find(|data| data.label.tag.is_none())
                .map(|data| data.name.clone());
            name.filter(|_| self.own.is_none()).map(|name| format!("nobody it knows ({name})"))
        };
        others.or_else(nobodys)
    }
}

/// The name of the file of a commit.
pub(in crate::sink) fn unproven_label(
    job: &str,
    part: u32,
    unproven: Unproven,
    owner: &Owner,
) -> Label {
    Label {
        job: job.to_owned(),
        first: unproven.time(),
        last: unproven.time(),
        part,
        tag: unproven.is_tagged.then(|| owner.identity.short()),
    }
}

/// The ways out of a refusal.
fn remedies(right: &str, owner: &Owner) -> String {
    remedies_from("Give", right, owner)
}

fn remedies_from(first: &str, right: &str, owner: &Owner) -> String {
    format!(
        "{first} the sink another directory, or {right}, or set `existing = \"append\"`: then files are written beside those \
         that are there, as JOB-TIME-PART.{}.EXT, and rows may be there twice",
        owner.digits()
    )
}
