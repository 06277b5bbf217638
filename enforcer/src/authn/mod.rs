//! Authentication: tokens and keys -> [`Credential`](crate::session::Credential).
