//! `login` and `forward_identity` of routes from PostgreSQL listeners.

use toml::Spanned;

use super::{
    Listener, Login, LoginUser, PostgresRoute, Protocol, RequestIdentity,
    draft::Draft,
    files::Content,
    raw::{RawLogin, RawRoute},
};

/// Longest name of a PostgreSQL user, in bytes.
const LONGEST_USER: usize = 63;

/// The settings of a route that starts at this listener, if that is known.
pub(super) fn route(
    draft: &mut Draft<'_>,
    raw: &RawRoute,
    listener: Option<&Listener>,
) -> Option<PostgresRoute> {
    let listener = listener?;
    if listener.protocol != Protocol::Postgres {
        report_settings(draft, raw);
        return None;
    }
    let by_certificate = matches!(listener.identity, RequestIdentity::Certificate(_));
    if raw.login.is_none() && !by_certificate {
        draft.report(
            &raw.listener,
            "the route has no `login`: a client that gives a token as its password has none for \
             the upstream",
            "add `login = { user = \"app\", password_file = \"password\" }`",
        );
    }
    let login = raw.login.as_ref();
    let forward_identity = raw.forward_identity.as_ref();
    Some(PostgresRoute {
        login: login.map_or(Login::Client, |raw| convert(draft, raw.get_ref())),
        forward_identity: forward_identity.is_some_and(|it| *it.get_ref()),
    })
}

/// Nobody else could heed them.
pub(super) fn report_settings(draft: &mut Draft<'_>, raw: &RawRoute) {
    refuse(draft, "login", raw.login.as_ref());
    refuse(draft, "forward_identity", raw.forward_identity.as_ref());
}

fn refuse<T>(draft: &mut Draft<'_>, key: &str, value: Option<&Spanned<T>>) {
    if let Some(value) = value {
        draft.report(
            value,
            format!("`{key}` has an effect on routes from PostgreSQL listeners only"),
            "remove it, or lead the route from a listener with `protocol = \"postgres\"`",
        );
    }
}

fn convert(draft: &mut Draft<'_>, raw: &RawLogin) -> Login {
    let from_client = draft.word(
        "user_from",
        raw.user_from.as_ref(),
        [("client", true), ("subject", false)],
    );
    let user = match (&raw.user, from_client) {
        (Some(user), _) => LoginUser::Fixed(fixed(draft, user)),
        (None, true) => LoginUser::Client,
        (None, false) => LoginUser::Subject,
    };
    if let (Some(_), Some(user_from)) = (&raw.user, &raw.user_from) {
        draft.report(
            user_from,
            "`user` and `user_from` exclude each other",
            "write `user` for one user for everybody, or `user_from` for one of each client's",
        );
    }
    let password = raw.password_file.as_ref();
    Login::Gateway(
        user,
        password.map(|path| draft.file(path, Content::Password)),
    )
}

fn fixed(draft: &mut Draft<'_>, value: &Spanned<String>) -> String {
    let text = value.get_ref();
    if text.is_empty() || text.len() > LONGEST_USER || text.contains('\0') {
        draft.report(
            value,
            format!("`{}` cannot be a PostgreSQL user", text.escape_debug()),
            format!("write a name of 1 to {LONGEST_USER} bytes"),
        );
    }
    text.clone()
}
