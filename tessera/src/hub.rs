//! Models by their name on the Hugging Face hub, found in its cache on this machine. Nothing is downloaded.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The revision that a name without one means.
const MAIN: &str = "main";

/// The path itself if it exists, else the folder or file that `org/name`, `org/name@revision` or `org/name/file` has in
/// the cache. A path that is no such name stays as it is.
///
/// # Errors
/// [`Error::NotInCache`] when it is such a name and the cache does not have it.
pub fn locate(path: &Path) -> Result<PathBuf> {
    match path.try_exists() {
        Ok(true) => return Ok(path.into()),
        // Something may be there, in a folder that nobody may look into.
        Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Error::io("read", path)(source));
        }
        _ => {}
    }
    match Name::parse(path) {
        Some(name) => name.locate(&cache(|variable| std::env::var_os(variable))),
        None => Ok(path.into()),
    }
}

/// Whether a text is a name of the hub's, and so one part of a path.
fn plain(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.chars().all(allowed) && !["", ".", ".."].contains(&text)
}

/// Where the hub's own tools keep what they downloaded.
fn cache(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let folder = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || {
        folder("HOME")
            .or_else(|| folder("USERPROFILE"))
            .unwrap_or_default()
    };
    let general = || folder("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
    folder("HF_HUB_CACHE")
        .or_else(|| Some(folder("HF_HOME")?.join("hub")))
        .unwrap_or_else(|| general().join("huggingface").join("hub"))
}

/// `org/name[@revision][/file]`
#[derive(Debug, PartialEq, Eq)]
struct Name {
    org: String,
    name: String,
    revision: Option<String>,
    file: Option<PathBuf>,
}

impl Name {
    fn parse(path: &Path) -> Option<Self> {
        let normal = |part: Component<'_>| match part {
            Component::Normal(part) => part.to_str().map(str::to_owned),
            _ => None,
        };
        let parts: Option<Vec<String>> = path.components().map(normal).collect();
        let [org, name, file @ ..] = &parts?[..] else {
            return None;
        };
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision.to_owned())),
            None => (name.as_str(), None),
        };
        // A name with a weights file's ending is a path that was mistyped.
        let is_file = file.is_empty()
            && [".safetensors", ".pth", ".pt", ".ckpt", ".json"]
                .iter()
                .any(|e| name.ends_with(e));
        let revision_is_plain = revision.as_deref().is_none_or(plain);
        (plain(org) && plain(name) && revision_is_plain && !is_file).then(|| Self {
            org: org.clone(),
            name: name.into(),
            revision,
            file: (!file.is_empty()).then(|| file.iter().collect()),
        })
    }

    fn locate(&self, cache: &Path) -> Result<PathBuf> {
        let folder = cache.join(format!("models--{}--{}", self.org, self.name));
        let revision = self.revision.as_deref().unwrap_or(MAIN);
        // A reference holds the commit that a branch or tag stood at; a commit is its own name.
        let commit = std::fs::read_to_string(folder.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
        // What is no plain name would lead out of the cache.
        let commit = if plain(&commit) {
            commit
        } else {
            revision.to_owned()
        };
        let snapshot = folder.join("snapshots").join(&commit);
        let found = match &self.file {
            Some(file) => snapshot.join(file),
            None => snapshot,
        };
        if found.exists() {
            return Ok(found);
        }
        Err(Error::NotInCache {
            name: format!("{}/{}", self.org, self.name),
            revision: self.revision.clone(),
            file: self.file.clone(),
            cache: cache.into(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_branch_its_commit_and_its_file() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--org--a.model");
        let snapshot = folder.join("snapshots/0123abc");
        std::fs::create_dir_all(snapshot.join("vae")).unwrap();
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/main"), "0123abc\n").unwrap();
        std::fs::write(snapshot.join("vae/kl16.ckpt"), "").unwrap();
        let locate = |name: &str| Name::parse(Path::new(name)).unwrap().locate(cache.path());
        assert_eq!(locate("org/a.model").unwrap(), snapshot);
        assert_eq!(locate("org/a.model@0123abc").unwrap(), snapshot);
        assert_eq!(
            locate("org/a.model/vae/kl16.ckpt").unwrap(),
            snapshot.join("vae/kl16.ckpt")
        );
        let missing = |name: &str| match locate(name) {
            Err(Error::NotInCache {
                name,
                revision,
                file,
                ..
            }) => (name, revision, file),
            other => panic!("expected no such model, got {other:?}"),
        };
        let name = "org/a.model".to_owned();
        assert_eq!(missing("org/other"), ("org/other".into(), None, None));
        assert_eq!(
            missing("org/a.model/x.pth"),
            (name.clone(), None, Some("x.pth".into()))
        );
        assert_eq!(missing("org/a.model@v2"), (name, Some("v2".into()), None));
    }

    #[test]
    fn a_reference_does_not_lead_out_of_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--org--a.model");
        std::fs::create_dir_all(folder.join("snapshots")).unwrap();
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::create_dir_all(cache.path().join("elsewhere")).unwrap();
        let outside = cache.path().join("elsewhere").display().to_string();
        for commit in [&outside, "../../elsewhere", "..", "", "."] {
            std::fs::write(folder.join("refs/main"), commit).unwrap();
            let name = Name::parse(Path::new("org/a.model")).unwrap();
            let found = name.locate(cache.path());
            assert!(
                matches!(found, Err(Error::NotInCache { .. })),
                "{commit}: {found:?}"
            );
        }
    }

    #[test]
    fn paths_are_no_names() {
        for path in [
            "org/a.model@..",
            "org/..",
            "org/a.model@v1;rm -rf ~",
            "/a/b",
            "../a/b",
            "a",
            "./x.pth",
            "a b/c",
            "runs/vae.safetensors",
        ] {
            assert_eq!(Name::parse(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let with = |pairs: &'static [(&str, &str)]| {
            cache(move |name| {
                let value = pairs.iter().find(|pair| pair.0 == name)?.1;
                Some(OsString::from(value))
            })
        };
        assert_eq!(
            with(&[("HOME", "/h")]),
            Path::new("/h/.cache/huggingface/hub")
        );
        assert_eq!(
            with(&[("HOME", "/h"), ("HF_HOME", "/f")]),
            Path::new("/f/hub")
        );
        assert_eq!(
            with(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")]),
            Path::new("/c")
        );
        assert_eq!(
            with(&[("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
    }
}
