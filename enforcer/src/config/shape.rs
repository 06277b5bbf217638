//! Faults of shape: text that is no TOML, unknown keys, missing keys, wrong types.

use super::{
    error::{Problem, did_you_mean, listed},
    location::Lines,
    raw::RawConfig,
};

/// Reads the text into raw structures, or says what stands in the way.
pub(super) fn read(text: &str, lines: &Lines) -> Result<RawConfig, Problem> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let found = text.get(span.clone()).unwrap_or_default();
        let (what, help) = explain(error.message(), found);
        Problem {
            line: lines.number(span.start),
            what,
            help,
        }
    })
}

/// Serde's message in the words of somebody who looks at the file.
fn explain(message: &str, found: &str) -> (String, String) {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return explain_unknown(rest);
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        let key = rest.trim_matches('`');
        return (
            format!("key `{key}` is missing"),
            match example(key) {
                Some(example) => format!("add `{example}`"),
                None => format!("add `{key} = ...`"),
            },
        );
    }
    if let Some(expected) = message
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.split_once(", expected "))
        .map(|(_, expected)| expected)
    {
        let found = found.lines().next().unwrap_or_default();
        return (
            format!("`{found}` is of the wrong type"),
            format!("write {}", plain(expected)),
        );
    }
    (
        format!("not valid TOML: {message}"),
        "correct the syntax here (https://toml.io)".to_owned(),
    )
}

/// What serde expects, without the names of Rust types.
fn plain(expected: &str) -> &str {
    match expected {
        "i64" => "a whole number",
        "path string" => "a path in quotes",
        "a sequence" => "a list in brackets",
        "a map" => "a section or a table in braces",
        structure if structure.starts_with("struct ") => "a section or a table in braces",
        plain => plain,
    }
}

/// Takes apart `` `typo`, expected one of `a`, `b` ``.
fn explain_unknown(rest: &str) -> (String, String) {
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let key = quoted.next().unwrap_or_default();
    let known: Vec<_> = quoted.collect();
    let what = format!("unknown key `{key}`");
    match did_you_mean(key, known.iter().copied()) {
        Some(candidate) => (what, format!("did you mean `{candidate}`?")),
        None => (
            what,
            format!("remove it, or write one of {}", listed(known)),
        ),
    }
}

/// A required key with a value, to copy.
fn example(key: &str) -> Option<&'static str> {
    Some(match key {
        "address" => r#"address = "0.0.0.0:8443""#,
        "tls" => r#"tls = { certificate = "cert.pem", private_key = "key.pem" }"#,
        "certificate" => r#"certificate = "cert.pem""#,
        "private_key" => r#"private_key = "key.pem""#,
        "from" => r#"from = ["10.0.0.0/8"]"#,
        "issuer" => r#"issuer = "https://idp.example""#,
        "audience" => r#"audience = "api""#,
        "algorithms" => r#"algorithms = ["RS256"]"#,
        "endpoint" => r#"endpoint = "https://idp.example/introspect""#,
        "client_id" => r#"client_id = "enforcer""#,
        "listener" => r#"listener = "NAME" with the name of a listener"#,
        "url" => r#"url = "https://alerts.example/hook""#,
        "secret_file" => r#"secret_file = "webhook.secret""#,
        "otlp" => r#"otlp = "http://127.0.0.1:4318""#,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        read(text, &Lines::new(text)).unwrap_err()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_likely_one() {
        let problem = problem("[policies.a]\nmax_session = \"1m\"\nidle_timout = \"5s\"\n");
        assert_eq!(problem.line, 3);
        assert_eq!(problem.what, "unknown key `idle_timout`");
        assert_eq!(problem.help, "did you mean `idle_timeout`?");
    }

    #[test]
    fn an_unknown_key_that_resembles_nothing_gets_the_list() {
        let problem = problem("[policies.a]\nmax_session = \"1m\"\ncolour = \"red\"\n");
        assert_eq!(problem.line, 3);
        assert_eq!(problem.what, "unknown key `colour`");
        assert!(
            problem.help.contains("`max_session`, `idle_timeout`"),
            "{problem:?}"
        );
    }

    #[test]
    fn a_missing_key_points_at_its_section() {
        let problem = problem("[daemon]\n\n[listeners.a]\naddress = \"[::]:1\"\n");
        assert_eq!(problem.line, 3);
        assert_eq!(problem.what, "key `tls` is missing");
        assert!(problem.help.starts_with("add `tls = {"), "{problem:?}");
    }

    #[test]
    fn a_value_of_the_wrong_type_says_which_one_to_write() {
        let integer = problem("[daemon]\nuser = 7\n");
        assert_eq!(
            (integer.line, integer.what.as_str()),
            (2, "`7` is of the wrong type")
        );
        assert_eq!(integer.help, "write a string");
        for (text, help) in [
            (
                "[daemon]\nmax_sessions = \"many\"\n",
                "write a whole number",
            ),
            ("[daemon]\nstate_dir = 1\n", "write a path in quotes"),
            ("daemon = 1\n", "write a section or a table in braces"),
            ("listeners = 1\n", "write a section or a table in braces"),
            (
                "[listeners.a]\naddress = \"\"\ntls = 1\n",
                "write a section or a table in braces",
            ),
            ("routes = 1\n", "write a list in brackets"),
        ] {
            assert_eq!(problem(text).help, help, "{text}");
        }
        let list = problem("[policies.a]\nmax_session = [1]\n");
        assert_eq!(list.help, "write a duration with its unit such as \"15m\"");
    }

    #[test]
    fn broken_syntax_and_repeated_keys_have_a_line() {
        assert_eq!(problem("[daemon]\nuser = \"x\nq = 1\n").line, 2);
        assert_eq!(problem("[daemon]\nuser = \"x\"\nuser = \"y\"\n").line, 3);
        assert_eq!(problem("x = ").line, 1);
    }
}
