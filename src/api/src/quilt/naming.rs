//! Kubernetes names for things that Quilt names freely. Pure.

use quilt_objects::names;

/// Longest slug: with a dash and eight digits it stays a label.
const SLUG_MAX: usize = 54;

/// Whether `name` can be an object's name as it is.
pub(crate) fn is_object_name(name: &str) -> bool {
    names::dns1123_subdomain(name).is_empty()
}

/// A valid name made from `name` and the first digits of `id`.
pub(crate) fn slug(name: &str, id: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => out.push(letter),
            _ if out.ends_with('-') || out.is_empty() => {}
            _ => out.push('-'),
        }
        if out.len() == SLUG_MAX {
            break;
        }
    }
    let slug = out.trim_matches('-');
    let digits: String = id.chars().take(8).collect();
    if slug.is_empty() { format!("quilt-{digits}") } else { format!("{slug}-{digits}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slugs are valid names, whatever they are made from.
    #[test]
    fn slugs_are_names() {
        for name in ["Web Server", "---", "ÄÖÜ", "a.b_c", &"x".repeat(253), "9"] {
            let slug = slug(name, "0f8fad5b-d9cb");
            assert!(is_object_name(&slug), "{name}: {slug}");
        }
        assert_eq!(slug("Web  Server", "0f8fad5b-d9cb"), "web-server-0f8fad5b");
        assert!(!is_object_name("Web") && is_object_name("web.one"));
    }
}
