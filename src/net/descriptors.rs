//! File descriptors: the limit, and the share of it that connections may take.
//!
//! Every connection takes one or two. If nobody counts them, idle peers take all there are, and the log, a checkpoint or a
//! sink's file fails for lack of one. So connections share the rest beside a reserve, and further peers are turned away.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for everything that is not counted: the HTTP server's connections, the log, checkpoints, spilled blocks and the
/// rest.
pub(crate) const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard one, which needs no privilege.
///
/// # Errors
/// If the system refuses; the limit stays as it was.
pub(crate) fn raise_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// The soft limit of open files; `None` if there is none.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Number of open descriptors, as far as the system tells.
pub(crate) fn open_now() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

/// The number of connections that a source wants, and the cost of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) connections: u64,
    /// Descriptors of one connection.
    pub(crate) each: u64,
}

/// The most connections of each source, so that all of them fit into `free` descriptors: the wanted numbers if they fit,
/// otherwise proportional shares, at least one each.
pub(crate) fn share(free: u64, wanted: &[Wanted]) -> Vec<u64> {
    let all: u64 = wanted
        .iter()
        .map(|one| one.connections.saturating_mul(one.each))
        .fold(0, u64::saturating_add);
    let of = |one: &Wanted| {
        if all <= free {
            return one.connections;
        }
        let share = u128::from(one.connections) * u128::from(free) / u128::from(all);
        u64::try_from(share).unwrap_or(one.connections).max(1)
    };
    wanted.iter().map(of).collect()
}

/// Number of descriptors that are free for connections: the limit less the open ones and the reserve, but at
/// least half of those that are not open.
pub(crate) fn free(limit: u64, open: u64, reserve: u64) -> u64 {
    limit.saturating_sub(open).saturating_sub(reserve).max(limit.saturating_sub(open) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_share_what_is_free_in_proportion() {
        let check = |free, wanted: &[(u64, u64)], expected: &[u64]| {
            let of = |&(connections, each)| Wanted { connections, each };
            let wanted: Vec<Wanted> = wanted.iter().map(of).collect();
            let shares = share(free, &wanted);
            assert_eq!(shares, expected, "{free} {wanted:?}");
            let taken: u64 = shares.iter().zip(&wanted).map(|(share, one)| share * one.each).sum();
            assert!(taken <= free.max(wanted.iter().map(|one| one.each).sum()));
        };
        check(1_000, &[], &[]);
        check(1_000, &[(1_000, 1)], &[1_000]);
        check(999, &[(1_000, 1)], &[999]);
        check(1_000, &[(1_000, 2)], &[500]);
        check(1_000, &[(10_000, 1), (10_000, 1)], &[500, 500]);
        check(1_000, &[(10, 1), (990, 1)], &[10, 990]);
        check(500, &[(10, 1), (990, 1)], &[5, 495]);
        check(900, &[(1_000, 2), (1_000, 1)], &[300, 300]);
        check(0, &[(10, 1), (5, 2)], &[1, 1]);
    }

    #[test]
    fn a_reserve_is_kept_and_a_small_limit_halved() {
        let check = |limit, open, reserve, expected| {
            assert_eq!(free(limit, open, reserve), expected, "{limit} {open} {reserve}");
        };
        check(1_024, 24, 128, 872);
        check(20_000, 0, 128, 19_872);
        check(64, 10, 128, 27);
        check(64, 100, 128, 0);
    }

    #[test]
    fn the_system_says_how_many_there_are() {
        assert!(open_now() >= 3);
        assert!(limit().is_none_or(|limit| limit >= open_now()));
    }
}
