//! Classes as a user names them: by id or by name.

use crate::error::{Error, Result};
use std::str::FromStr;

/// Names that an error lists.
const LISTED: usize = 5;

/// The id of a class given by its name, by its id, or by its name in another case where one class alone has it.
///
/// # Errors
/// On an unknown class; the error lists the nearest names. On a name that differs from several in case.
pub fn class_id(class: &str, names: &[String]) -> Result<usize> {
    let exact = |class: &str| names.iter().position(|name| name == class);
    if let Some(id) = exact(class).or_else(|| exact(class.trim())) {
        return Ok(id);
    }
    let class = class.trim();
    let lower = class.to_lowercase();
    let alike = |&id: &usize| names[id].trim().to_lowercase() == lower;
    match (0..names.len()).filter(alike).collect::<Vec<_>>()[..] {
        [] => {}
        [id] => return Ok(id),
        ref several => {
            return Err(Error::AmbiguousClass {
                found: class.into(),
                names: several
                    .iter()
                    .map(|&id| format!("{} ({id})", names[id]))
                    .collect(),
            });
        }
    }
    match class.parse::<usize>() {
        Ok(id) if id < names.len() => Ok(id),
        Ok(found) => Err(Error::UnknownClassId {
            found,
            last: names.len().saturating_sub(1),
        }),
        Err(_) => Err(Error::UnknownClass {
            found: class.into(),
            nearest: nearest(&lower, names),
        }),
    }
}

fn nearest(lower: &str, names: &[String]) -> Vec<String> {
    let distance = |name: &String| strsim::levenshtein(lower, &name.to_lowercase());
    let mut by_distance: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(id, name)| (distance(name), id))
        .collect();
    by_distance.sort_unstable();
    let named = |&(_, id): &(usize, usize)| format!("{} ({id})", names[id]);
    by_distance.iter().take(LISTED).map(named).collect()
}

/// Classes as a user lists them: separated by commas, but for those within double quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassList(Vec<String>);

impl ClassList {
    /// What stands between the commas.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl FromStr for ClassList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut names, mut quoted) = (vec![String::new()], false);
        for c in text.chars() {
            match (c, names.last_mut()) {
                ('"', _) => quoted = !quoted,
                (',', _) if !quoted => names.push(String::new()),
                (_, Some(name)) => name.push(c),
                (_, None) => {}
            }
        }
        if quoted {
            return Err("expected a second double quote".into());
        }
        if names.iter().any(|name| name.trim().is_empty()) {
            return Err("expected a class between the commas, found nothing".into());
        }
        Ok(Self(names))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["t-shirt", "sneaker", "ankle boot"]
            .map(String::from)
            .to_vec()
    }

    #[test]
    fn names_and_ids_are_classes() {
        let ids = ["Sneaker", "2", " ankle boot"].map(|class| class_id(class, &names()).unwrap());
        assert_eq!(ids, [1, 2, 2]);
    }

    #[test]
    fn classes_that_differ_in_case_are_told_apart() {
        let names = ["x", "Cat", "Dog", "cat", " Emu"].map(String::from);
        let ids = ["Cat", "cat", "DOG", "emu"].map(|class| class_id(class, &names).unwrap());
        assert_eq!(ids, [1, 3, 2, 4]);
        let error = class_id("CAT", &names).unwrap_err().to_string();
        assert!(error.contains("Cat (1), cat (3)"), "{error}");
    }

    #[test]
    fn an_unknown_class_names_the_nearest_first() {
        let error = class_id("sneeker", &names()).unwrap_err().to_string();
        assert!(error.contains("the nearest are: sneaker (1), "), "{error}");
        let error = class_id("7", &names()).unwrap_err().to_string();
        assert!(error.contains("classes 0 to 2"), "{error}");
    }

    #[test]
    fn classes_with_commas_are_reached_by_quoting() {
        for (text, expected) in [
            ("3,7", &["3", "7"][..]),
            ("\"shirt,long\",ankle boot", &["shirt,long", "ankle boot"]),
            ("-1", &["-1"]),
        ] {
            let classes: ClassList = text.parse().unwrap();
            assert_eq!(classes.names().collect::<Vec<_>>(), expected);
        }
        for bad in ["", "a,", "\"a,b", ",,"] {
            bad.parse::<ClassList>().unwrap_err();
        }
    }
}
