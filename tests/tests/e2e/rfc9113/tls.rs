//! TLS below HTTP/2 (sections 3.2 and 9.2), against OpenSSL: what rustls does not speak at all needs
//! no list of what is prohibited.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use enforcer_tests::{certificates::SERVER_NAME, client::http2::PREFACE};

use super::{Case, Stage, case};

/// What OpenSSL says of a handshake with these options.
fn shake_hands(stage: &Stage, options: &[&str]) -> Result<String> {
    let bed = &stage.scene.bed;
    let mut openssl = bed.command(bed.client(), "openssl")?;
    openssl
        .args(["s_client", "-servername", SERVER_NAME, "-connect"])
        .arg(stage.client.server().to_string())
        .args(options)
        .stdin(Stdio::null());
    let output = openssl.output().context("run OpenSSL")?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn says(stage: &Stage, options: &[&str], expected: &[&str]) -> Result<()> {
    let said = shake_hands(stage, options)?;
    for expected in expected {
        ensure!(said.contains(expected), "no {expected:?} in {said}");
    }
    Ok(())
}

pub(super) const CASES: &[Case] = &[
    case("3.2", "HTTP/2 is agreed on by its name, h2", |stage| {
        let expected = ["ALPN protocol: h2", "TLSv1.3", "Compression: NONE"];
        says(stage, &["-tls1_3", "-alpn", "http/1.1,h2"], &expected)
    }),
    case("3.2", "without a name it is HTTP/1.1", |stage| {
        let raw = stage.client.speaking(&[]).tls()?;
        raw.write([PREFACE, &[0; 9]].concat())?;
        let (answer, _) = raw.read_to_end()?;
        ensure!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        Ok(())
    }),
    case("3.2", "with other names only there is none", |stage| {
        let expected = ["alert no application protocol"];
        says(stage, &["-alpn", "h3,h2c"], &expected)
    }),
    case("9.2", "TLS 1.2 will do", |stage| {
        let expected = ["ALPN protocol: h2", "TLSv1.2", "Compression: NONE"];
        says(stage, &["-tls1_2", "-alpn", "h2"], &expected)
    }),
    case("9.2", "less will not", |stage| {
        let weak = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-alpn", "h2"];
        says(stage, &weak, &["Cipher is (NONE)", "SSL alert number"])
    }),
    case(
        "9.2.2",
        "cipher suites that are prohibited are not taken",
        |stage| {
            let cipher = "ALL:!AESGCM:!CHACHA20:@SECLEVEL=0";
            let prohibited = ["-tls1_2", "-cipher", cipher, "-alpn", "h2"];
            says(stage, &prohibited, &["alert handshake failure"])
        },
    ),
];
