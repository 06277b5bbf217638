use std::fs;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A folder with the good file and everything that it refers to.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap().pem();
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    write("cert.pem", &certificate);
    write("key.pem", &key.serialize_pem());
    write("ca.pem", &certificate);
    write("secret", &"x".repeat(32));
    write("config.toml", GOOD);
    folder
}

#[test]
fn files_are_looked_into() {
    let good = folder();
    let path = good.path().join("config.toml");
    let config = Config::load_with_files(&path).unwrap();
    assert_eq!(config, Config::load(&path).unwrap());

    let stranger = KeyPair::generate().unwrap().serialize_pem();
    for (name, content, line, what) in [
        (
            "cert.pem",
            None,
            8,
            "cert.pem` cannot be read: No such file",
        ),
        ("cert.pem", Some("hello"), 8, "holds no PEM certificate"),
        ("key.pem", Some("hello"), 8, "holds no PEM private key"),
        ("key.pem", Some(stranger.as_str()), 8, "is not the key of `"),
        ("secret", None, 13, "secret` cannot be read: No such file"),
        ("secret", Some("short\n"), 13, "a secret of 5 bytes"),
    ] {
        let folder = folder();
        let file = folder.path().join(name);
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let error = Config::load_with_files(&folder.path().join("config.toml")).unwrap_err();
        let problems = problems(error);
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!(problems[0].line, line, "{problems:?}");
        assert!(problems[0].what.contains(what), "{problems:?}");
    }
}

#[test]
fn a_missing_authority_is_reported_at_each_reference() {
    let folder = folder();
    fs::remove_file(folder.path().join("ca.pem")).unwrap();
    let error = Config::load_with_files(&folder.path().join("config.toml")).unwrap_err();
    let lines: Vec<_> = problems(error).iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [8, 27]);
}

#[test]
fn a_key_that_cannot_be_read_is_reported_where_it_is_referred_to() {
    let folder = folder();
    let key = folder.path().join("key.pem");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    let error = Config::load_with_files(&folder.path().join("config.toml")).unwrap_err();
    let problems = problems(error);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].line, 8);
    assert!(
        problems[0].what.contains("key.pem` cannot be read"),
        "{problems:?}"
    );
    assert_eq!(
        problems[0].help,
        "write the path of a file, not of a folder"
    );
}
