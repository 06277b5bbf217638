//! stub
pub fn run() -> anyhow::Result<()> { anyhow::bail!("x") }
