//! Classes as a user names them: by id or by name.

use anyhow::{Result, bail};
use tessera_train::weights::edit_distance;

/// The ids of a comma-separated list of ids and names.
///
/// # Errors
/// On an unknown class; the error names the nearest ones.
pub fn resolve(wanted: &[String], names: &[String]) -> Result<Vec<usize>> {
    wanted
        .iter()
        .map(|class| resolve_one(class.trim(), names))
        .collect()
}

fn resolve_one(class: &str, names: &[String]) -> Result<usize> {
    let same = |name: &&String| name.to_lowercase() == class.to_lowercase();
    if let Some(id) = names.iter().position(|name| same(&name)) {
        return Ok(id);
    }
    match class.parse::<usize>() {
        Ok(id) if id < names.len() => Ok(id),
        Ok(id) => bail!(
            "class {id} does not exist: the model has classes 0 to {}",
            names.len() - 1
        ),
        Err(_) => bail!(
            "class `{class}` does not exist; the nearest are: {}",
            nearest(class, names).join(", ")
        ),
    }
}

fn nearest(class: &str, names: &[String]) -> Vec<String> {
    let mut by_distance: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(id, name)| {
            (
                edit_distance(&class.to_lowercase(), &name.to_lowercase()),
                id,
            )
        })
        .collect();
    by_distance.sort_unstable();
    by_distance
        .iter()
        .take(5)
        .map(|&(_, id)| format!("{} ({id})", names[id]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["t-shirt", "sneaker", "ankle boot"]
            .map(String::from)
            .to_vec()
    }

    #[test]
    fn names_and_ids_are_classes() {
        let wanted = ["Sneaker", "2", " ankle boot"].map(String::from);
        assert_eq!(resolve(&wanted, &names()).unwrap(), [1, 2, 2]);
    }

    #[test]
    fn an_unknown_class_names_the_nearest_first() {
        let error = resolve(&["sneeker".into()], &names())
            .unwrap_err()
            .to_string();
        assert!(error.contains("the nearest are: sneaker (1), "), "{error}");
        let error = resolve(&["7".into()], &names()).unwrap_err().to_string();
        assert!(error.contains("classes 0 to 2"), "{error}");
    }
}
