//! Tokens in cookies.

use super::*;

/// The good file with these lines more at its listener.
fn listener(lines: &str) -> String {
    GOOD.replace(
        "protocol = \"http\"\n",
        &format!("protocol = \"http\"\n{lines}\n"),
    )
}

#[test]
fn a_listener_may_have_a_cookie_and_origins() {
    let text = listener(
        "token_cookie = \"__Host-token\"\nallowed_origins = [\"https://App.example:443\"]",
    );
    let config = parse(&text).unwrap();
    let cookie = config.listeners["public"].cookie.as_ref().unwrap();
    assert_eq!(cookie.name, "__Host-token");
    assert_eq!(cookie.origins, ["https://app.example"]);
    assert_eq!(parse(GOOD).unwrap().listeners["public"].cookie, None);
}

#[test]
fn what_is_no_cookie_or_origin_is_refused() {
    for (lines, what) in [
        (
            "token_cookie = \"a b\"",
            "`a b` is not the name of a cookie",
        ),
        (
            "allowed_origins = [\"https://a\"]",
            "no effect without `token_cookie`",
        ),
        (
            "token_cookie = \"t\"\nallowed_origins = [\"app.example\"]",
            "`app.example` is not an origin",
        ),
    ] {
        let problems = problems(parse(&listener(lines)).unwrap_err());
        let [problem] = &problems[..] else {
            panic!("{problems:#?}");
        };
        assert!(problem.what.contains(what), "{problem:?}");
    }
}
