//! What to try after an error of the library, which knows no flags.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use tessera::Error;
use tessera::attention2d::Error as RankError;
use tessera::backend::Error as DeviceError;
use tessera::evaluate::Error as JudgeError;
use tessera::gen_dit::Error as DitError;
use tessera::pictures::Error as PictureError;
use tessera::tokenizers::Error as TokenizerError;

/// A panic of a device's driver that speaks of memory.
#[derive(Debug)]
pub struct NoMemory(pub String);

impl Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for NoMemory {}

/// The flag that helps, if one does.
pub fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(hint)
}

fn hint(cause: &(dyn StdError + 'static)) -> Option<String> {
    // The cause of an error in the library's own words is boxed.
    let boxed = cause.downcast_ref::<Box<Error>>().map(|boxed| &**boxed);
    match boxed.or_else(|| cause.downcast_ref()) {
        Some(Error::NoTokenizer { .. }) => return Some("give its tokenizer with --vae".into()),
        Some(Error::Exchanged { .. }) => {
            return Some(
                "--vae gives another tokenizer; `tessera convert FOLDER -o NEW` makes a model of the parts as they are"
                    .into(),
            );
        }
        Some(Error::Unfinished { .. }) => {
            return Some("the command that began it, with --resume latest, finishes it".into());
        }
        Some(Error::NotInCache {
            name,
            revision,
            file,
            ..
        }) => {
            let file = file.as_ref().map_or(String::new(), |file| {
                format!(" {}", quoted(&file.to_string_lossy()))
            });
            let revision = revision.as_ref().map_or(String::new(), |name| {
                format!(" --revision {}", quoted(name))
            });
            return Some(format!(
                "to download it, run: hf download {}{file}{revision}",
                quoted(name)
            ));
        }
        Some(Error::OtherModel { .. }) => {
            return Some("give the model that made it with -m".into());
        }
        Some(Error::DataType { .. }) => return Some("give another --dtype or --device".into()),
        Some(Error::Device(error)) => return hint(error),
        Some(Error::Ranks(error)) => return hint(error),
        Some(Error::Tokenizer(error)) => return hint(error),
        Some(Error::Train(error)) => return of_run(error),
        Some(Error::Pictures(error)) => return hint(error),
        Some(Error::GenDit(DitError::Large { .. })) => {
            return Some("give a smaller --cfg-scale".into());
        }
        Some(Error::AmbiguousClass { .. }) => {
            return Some("give its id, or its name to the letter".into());
        }
        Some(Error::UnknownClass { nearest, .. })
            if nearest.iter().any(|name| name.contains(',')) =>
        {
            return Some(
                "a name with a comma in it stands in double quotes: --class '\"a, b\"'".into(),
            );
        }
        _ => {}
    }
    if let Some(DeviceError::NotBuiltIn { feature, .. }) = cause.downcast_ref() {
        return Some(format!(
            "build with --features {feature}, or give another --device"
        ));
    }
    if let Some(RankError::Mismatch { .. }) = cause.downcast_ref() {
        return Some("run it with --check, whose error names the collective that differs".into());
    }
    if cause.downcast_ref::<NoMemory>().is_some() {
        return Some(
            "out of memory, as it seems; try --max-vram, a smaller --batch-size, --vae-tile or --device flex".into(),
        );
    }
    if let Some(PictureError::LargerThanSquare { .. }) = cause.downcast_ref() {
        return Some("give a larger --img-size".into());
    }
    match cause.downcast_ref() {
        Some(TokenizerError::NoRoom { .. }) => {
            return Some("give more --max-vram, or another --device".into());
        }
        Some(TokenizerError::ImageSize { .. }) => return Some("give another --img-size".into()),
        Some(TokenizerError::PatchFit { .. }) => {
            return Some("give another --img-size, or --patch 1".into());
        }
        Some(TokenizerError::Tiling { .. }) => {
            return Some("give another --vae-tile or --vae-tile-overlap".into());
        }
        _ => {}
    }
    if let Some(JudgeError::Train(error)) = cause.downcast_ref() {
        return of_run(error);
    }
    cause.downcast_ref().and_then(of_run)
}

/// What helps with a run folder.
fn of_run(error: &tessera::train::Error) -> Option<String> {
    use tessera::train::Error;
    match error {
        Error::BadCheckpoint { file, older, .. } => Some(match older {
            Some(older) => format!(
                "{} is whole: remove {}, then --resume latest goes on from there",
                older.display(),
                file.display()
            ),
            None => "no other checkpoint of the run is whole: begin anew with --overwrite".into(),
        }),
        Error::InUse { pid, .. } => Some(match pid {
            Some(pid) => {
                format!("wait until it ends, or stop it with `kill {pid}`: it saves first")
            }
            None => "wait until it ends, or stop it".into(),
        }),
        Error::NothingToResume { .. } => Some("begin a run without --resume".into()),
        Error::FolderNotEmpty { .. } => Some(
            "go on with --resume latest, begin anew with --overwrite, or give another -o".into(),
        ),
        _ => None,
    }
}

/// A text as one word of a shell's command.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./@:+,=".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errors_that_a_flag_helps_with_name_it() {
        let device = || DeviceError::NotBuiltIn {
            device: "cuda:1".into(),
            feature: "cuda",
        };
        let bare = Err::<(), _>(device()).context("doctor").unwrap_err();
        for error in [bare, Error::from(device()).into()] {
            let hint = of(&error).unwrap();
            assert!(hint.contains("--features cuda"), "{hint}");
        }
        let room = TokenizerError::NoRoom {
            bytes: 1,
            needed: 2,
        };
        let hint = of(&Error::from(room).into()).unwrap();
        assert!(hint.contains("--max-vram"), "{hint}");
        let mismatch = RankError::Mismatch {
            rank: 1,
            cause: "1 byte".into(),
        };
        let hint = of(&Error::from(mismatch).into()).unwrap();
        assert!(hint.contains("--check"), "{hint}");
        assert_eq!(of(&anyhow::anyhow!("other")), None);
    }

    #[test]
    fn classes_and_guidance_that_cannot_be_say_what_can() {
        let unknown = |nearest: &str| Error::UnknownClass {
            found: "shirt".into(),
            nearest: vec![nearest.into()],
        };
        let hint = of(&unknown("shirt,long (2)").into()).unwrap();
        assert!(hint.contains("double quotes"), "{hint}");
        assert_eq!(of(&unknown("skirt (1)").into()), None);
        let large = DitError::Large {
            step: 1,
            steps: 2,
            image: 0,
            size: 1e9,
        };
        let hint = of(&Error::from(large).into()).unwrap();
        assert!(hint.contains("--cfg-scale"), "{hint}");
    }

    #[test]
    fn what_the_cache_does_not_have_can_be_downloaded() {
        let missing = |revision: Option<&str>, file: Option<&str>| Error::NotInCache {
            name: "org/a.model".into(),
            revision: revision.map(Into::into),
            file: file.map(Into::into),
            cache: "cache".into(),
        };
        let hint = |error: Error| of(&error.into()).unwrap();
        assert!(hint(missing(None, None)).ends_with("run: hf download org/a.model"));
        assert!(hint(missing(None, Some("x.pth"))).ends_with("download org/a.model x.pth"));
        assert!(hint(missing(Some("v2"), None)).ends_with("org/a.model --revision v2"));
        assert!(hint(missing(None, Some("a;rm -rf ~"))).ends_with("org/a.model 'a;rm -rf ~'"));
        assert!(hint(missing(None, Some("it's"))).ends_with(r"org/a.model 'it'\''s'"));
    }

    #[test]
    fn a_checkpoint_without_a_tokenizer_hints_at_the_flag() {
        let error = Error::NoTokenizer {
            path: "checkpoint-last.pth".into(),
        };
        assert_eq!(
            of(&error.into()).as_deref(),
            Some("give its tokenizer with --vae")
        );
    }
}
