//! The look of each subject, the same in every plot of every page, and what a plot takes from its page. Pure.

use crate::lab::results::{Cell, SubjectKind};
use crate::page::{Look, Span};

/// The places of the palette; io models that are not here share the last two with the peers.
const MODELS: [(&str, u8); 5] = [("bio", 1), ("pool", 2), ("nio", 3), ("reactors", 4), ("aio", 5)];

/// The look of the bare loop.
const BARE: u8 = 0;

/// The looks of everything else, by its place among the subjects.
const OTHERS: [u8; 2] = [6, 7];

/// The look of the subject of a cell among the cells of its plot. A model a second time, by itself or in another file, has
/// the echo of its look.
pub(in crate::lab) fn look(cells: &[&Cell], cell: &Cell) -> Look {
    let subject = &cell.subject;
    let place = cells.iter().position(|other| other.subject == *subject).unwrap_or(0);
    let other = OTHERS[place % OTHERS.len()];
    let model = MODELS.iter().find(|(name, _)| *name == subject.name);
    let look = Look::new(match subject.kind {
        SubjectKind::Bare => BARE,
        SubjectKind::Model => model.map_or(other, |(_, place)| *place),
        SubjectKind::Peer => other,
    });
    let first = cells.first().map_or(&subject.origin, |first| &first.subject.origin);
    if subject.twin > 0 || subject.origin != *first { look.echo() } else { look }
}

/// The part of a plot that depends on its page.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// A warning that stands in the plot.
    pub(super) mark: Option<&'a str>,
    /// The values that the axis has at least.
    pub(super) with: Option<Span>,
}

/// The text with a capital letter at its start.
pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().collect::<String>());
    first.unwrap_or_default() + chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::results::Subject;
    use crate::source::io::IO_MODELS;

    fn cell(name: &str, kind: SubjectKind) -> Cell {
        let subject = Subject { name: name.to_owned(), kind, ..Subject::default() };
        Cell { subject, ..Cell::default() }
    }

    #[test]
    fn every_model_has_a_look_of_its_own() {
        let models = IO_MODELS.iter().map(|row| {
            assert!(MODELS.iter().any(|(name, _)| *name == row.name), "{}", row.name);
            cell(row.name, SubjectKind::Model)
        });
        let cells: Vec<Cell> = models.chain([cell("bare", SubjectKind::Bare)]).collect();
        let cells: Vec<&Cell> = cells.iter().collect();
        let mut looks: Vec<Look> = cells.iter().map(|cell| look(&cells, cell)).collect();
        looks.sort_by_key(|look| format!("{look:?}"));
        looks.dedup();
        assert_eq!(looks.len(), IO_MODELS.len() + 1);
    }

    #[test]
    fn a_second_one_is_an_echo() {
        let first = cell("nio", SubjectKind::Model);
        let (mut twin, mut elsewhere) = (first.clone(), first.clone());
        (twin.subject.twin, elsewhere.subject.origin) = (1, Some("b.json".to_owned()));
        let cells = [&first, &twin, &elsewhere];
        let found = cells.map(|cell| look(&cells, cell));
        assert_eq!(found, [found[0], found[0].echo(), found[0].echo()]);
        assert_ne!(found[0], found[1]);
    }
}
