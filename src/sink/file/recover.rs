//! The work of a start in an output directory once all sinks have agreed: what an earlier run left is finished or forgotten. Runs
//! on the thread that starts the stream.

use std::io;

use super::File;
use super::hidden;
use super::ledger::LedgerFile;
use super::names::Label;
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::wording::count;

/// The name under which the first version wrote a file before it had its own.
const OLD_ASIDE: &str = ".aside";

impl File {
    /// Finishes what an earlier run left open, forgets the batch that did not get its name, takes over what is from before
    /// identities.
    pub(super) fn recover(
        &self,
        survey: Survey,
        owner: &Owner,
        note: &mut dyn FnMut(String),
    ) -> Result<Option<LedgerFile>> {
        let (storage, end) = (self.storage.as_ref(), self.options.format);
        let fail =
            |err| Error::io(format!("cannot recover the output directory {}", storage.name()), err);
        let lacks_commits = survey.lacks_commits(owner);
        let Survey { own, is_undone, own_hidden, nobodys_hidden, data, .. } = survey;
        let adopts = own.is_none() && owner.adoption.is_some() && self.takes_over();
        let fresh = match own {
            _ if !owner.has_state() => None,
            Some(own) => Some(own),
            None => Some(LedgerFile::new(&self.storage, owner)?),
        };
        let mut ledger = fresh;
        if let Some(ledger) = ledger.as_mut().filter(|_| is_undone) {
            ledger.take_back().map_err(fail)?;
        }
        for hidden in &own_hidden {
            match hidden.unlisted().filter(|_| lacks_commits) {
                Some(bytes) => {
                    let kept = hidden.keep(storage).map_err(fail)?;
                    note(unlisted(&storage.name(), &hidden.name(), &kept, bytes));
                }
                None => hidden.finish(storage, ledger.as_mut(), end, note)?,
            }
        }
        if !owner.has_state() && !self.appends() {
            nobodys_hidden.iter().try_for_each(|hidden| hidden.finish(storage, None, end, note))?;
        }
        if adopts && let Some(ledger) = &mut ledger {
            // Named first: until the state has its identity a start takes over again what the last one did not get to.
            nobodys_hidden.iter().try_for_each(|hidden| hidden.finish(storage, None, end, note))?;
            let labels = nobodys_hidden.iter().filter(|hidden| !hidden.entries().is_empty());
            let labels =
                labels.map(hidden::Hidden::label).chain(data.iter().map(|data| &data.label));
            let taken =
                labels.map(|label| ledger.adopt(&label.job, label.part, label.last)).count();
            if taken > 0 {
                ledger.put().map_err(|failure| fail(failure.into()))?;
                let dir = storage.name();
                note(format!(
                    "{dir}: took over {} from before a `state_dir` had an identity",
                    count(taken, "file")
                ));
            }
        }
        self.remove_asides(owner).map_err(fail)?;
        Ok(ledger)
    }

    /// Files that were written aside for batches that did not come to count.
    fn remove_asides(&self, owner: &Owner) -> io::Result<()> {
        let tag = self.appends().then(|| owner.identity().short());
        for name in self.storage.list()? {
            let is_own = Label::of_hidden(&name, "aside").is_some_and(|label| label.tag == tag);
            if is_own || name == OLD_ASIDE {
                self.storage.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// The note on an open file that no manifest tells of, while commits are missing: its rows may be those.
fn unlisted(dir: &str, name: &str, kept: &str, bytes: u64) -> String {
    let bytes = count(bytes, "byte");
    format!(
        "{dir}/{name} is kept as {kept}, with {bytes}: its manifest lists no batch, but commits of this state directory are missing here, \
         and its rows may be theirs; look at it, and rename or remove it"
    )
}
