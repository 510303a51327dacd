//! Versions of dependencies.

use super::broken::Broken;
use super::members::File;

/// Refuses a dependency of a member whose version is not the workspace's.
pub fn versions(file: &File) -> Vec<Broken> {
    let is_workspace = file.text.lines().any(|line| line == "[workspace]");
    if is_workspace
        || file
            .name
            .file_name()
            .is_none_or(|name| name != "Cargo.toml")
    {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let (mut listing, mut depth) = (false, 0);
    for (index, line) in file.text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let opened = line.matches(['[', '{']).count();
        let closed = line.matches([']', '}']).count();
        if depth == 0 && line.starts_with('[') {
            let section = line.trim_matches(['[', ']']);
            listing = section.ends_with("dependencies");
            if section.contains("dependencies.") {
                broken.push(Broken::new(
                    index + 1,
                    "a dependency in a section of its own",
                ));
            }
        } else if depth == 0 && listing && !line.is_empty() {
            let workspace = line.replace(' ', "").contains("workspace=true");
            if !workspace {
                let name = line.split(['=', '.']).next().unwrap_or_default().trim();
                let rule = format!("the version of {name} is not from the workspace");
                broken.push(Broken::new(index + 1, rule));
            }
        }
        depth = (depth + opened).saturating_sub(closed);
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::members::testing::files;
    use super::*;

    #[test]
    fn versions_come_from_the_workspace() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = { workspace = true, features = \
            [\n  \
                    \"c\",\n] }\nd = \"1\"\n[dev-dependencies]\ne = { version = \"1\" } # why\n[features]\nf = []\n\
                    [dependencies.g]\nversion = \"1\"\n";
        let files = files(&[
            ("a/Cargo.toml", text),
            ("Cargo.toml", &format!("[workspace]\n{text}")),
            ("a/other.toml", text),
        ]);
        let lines = |file: &File| {
            versions(file)
                .iter()
                .map(|broken| broken.line)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&files[0]), [8, 10, 13]);
        assert!(lines(&files[1]).is_empty() && lines(&files[2]).is_empty());
    }
}
