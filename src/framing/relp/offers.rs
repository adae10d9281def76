//! The offers of a RELP peer, and the answer to them: the protocol version and the commands. Runs on the io threads; it
//! does not know when an `open` may come.

use super::frame::push_frame;
use crate::framing::{Found, Malformed};

/// The highest version of the protocol that we speak. The reference implementation offers 0 and accepts no other.
const VERSION: u32 = 1;

/// Answers the offers of an `open`: the lower of both versions, and the only command.
pub(super) fn answer_offers(txnr: u32, offers: &[u8], found: &mut Found) -> Result<(), Malformed> {
    let offered = |name: &str| {
        let mut lines = offers.split(|byte| *byte == b'\n');
        lines.find_map(|line| std::str::from_utf8(line).ok()?.strip_prefix(name)?.strip_prefix('='))
    };
    let version = offered("relp_version").and_then(|version| version.trim().parse::<u32>().ok());
    let mut commands = offered("commands").unwrap_or_default().split(',');
    let refused = match version {
        None => Some("the offers name no `relp_version`"),
        Some(_) if !commands.any(|command| command.trim() == "syslog") => {
            Some("the offers do not have the command `syslog`")
        }
        Some(_) => None,
    };
    if let Some(why) = refused {
        let status = format!("500 {why}");
        push_frame(&mut found.replies, txnr, "rsp", status.as_bytes());
        return Err(Malformed(why.to_owned()));
    }
    let version = version.unwrap_or_default().min(VERSION);
    let ours = format!(
        "200 OK\nrelp_version={version}\nrelp_software=tidemill,{}\ncommands=syslog",
        env!("CARGO_PKG_VERSION")
    );
    push_frame(&mut found.replies, txnr, "rsp", ours.as_bytes());
    Ok(())
}
