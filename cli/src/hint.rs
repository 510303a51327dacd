//! What to try after an error of the library, which knows no flags.

use tessera::{Error, tokenizers};

/// The flag that helps, if one does.
pub fn of(error: &anyhow::Error) -> Option<&'static str> {
    let mut faults = error.chain().filter_map(|cause| {
        let boxed = cause.downcast_ref::<Box<Error>>().map(|boxed| &**boxed);
        boxed.or_else(|| cause.downcast_ref())
    });
    faults.find_map(|fault| match fault {
        Error::NoTokenizer { .. } => Some("give its tokenizer with --vae"),
        Error::DataType { .. } => Some("give another --dtype or --device"),
        Error::Tokenizer(tokenizers::Error::NoRoom { .. }) => {
            Some("give more --max-vram, or another --device")
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::of;
    use tessera::{Device, Model};

    #[test]
    fn a_checkpoint_without_a_tokenizer_hints_at_the_flag() {
        let folder = tempfile::tempdir().expect("a folder");
        let error =
            Model::open(folder.path(), &Device::cpu()).expect_err("an empty folder is no model");
        assert_eq!(of(&error.into()), Some("give its tokenizer with --vae"));
        assert_eq!(of(&anyhow::anyhow!("something else")), None);
    }
}
