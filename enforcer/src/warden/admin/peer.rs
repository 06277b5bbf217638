//! Who is at the other end of the socket, and whether they may be.

use std::{ffi::CString, io};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::UnixStream;

/// A client of the admin API, as the kernel knows it (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user when it connected.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its process.
    pub pid: Option<i32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
        })
    }
}

/// Who may use the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Root.
    Root,
    /// Root and the members of this group.
    Group(Gid),
}

impl Access {
    /// Looks the group up; `None` if there is none of this name.
    pub(super) fn group(name: &str) -> io::Result<Option<Self>> {
        let group = Group::from_name(name).map_err(io::Error::from)?;
        Ok(group.map(|group| Self::Group(group.gid)))
    }

    pub(super) fn allows(self, peer: Peer) -> bool {
        if peer.uid == 0 {
            return true;
        }
        let Self::Group(group) = self else {
            return false;
        };
        peer.gid == group.as_raw() || is_member(peer, group)
    }
}

/// The user belongs to the group by the user database. A user that can't be looked up belongs to
/// none.
fn is_member(peer: Peer, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(peer.uid)) else {
        return false;
    };
    let Ok(name) = CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(uid: u32, gid: u32) -> Peer {
        Peer {
            uid,
            gid,
            pid: None,
        }
    }

    #[test]
    fn root_and_members_may_and_others_may_not() {
        let group = Access::Group(Gid::from_raw(4_242));
        for (access, peer, allowed) in [
            (Access::Root, peer(0, 0), true),
            (Access::Root, peer(1, 0), false),
            (group, peer(0, 0), true),
            (group, peer(54_321, 4_242), true),
            (group, peer(54_321, 54_321), false),
        ] {
            assert_eq!(access.allows(peer), allowed, "{access:?} {peer:?}");
        }
    }

    #[test]
    fn membership_comes_from_the_user_database() {
        // Everywhere `daemon` (1) has a group of its own that is its primary one.
        let group = Access::group("daemon").unwrap().unwrap();
        assert!(group.allows(peer(1, 54_321)));
        assert!(!group.allows(peer(65_534, 65_534)));
        assert_eq!(Access::group("no such group").unwrap(), None);
    }
}
