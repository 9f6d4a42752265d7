//! stand-in until the journal's commit
pub fn check_key_file(_: &std::path::Path) -> std::io::Result<()> {
    Ok(())
}
