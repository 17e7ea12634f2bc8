//! The names of a group's threads in a line: `pool-1-thread-# (190), main`.

use crate::format::count;
use crate::sample::Group;

/// Not yet safe to print. `None` where no name is known.
pub(crate) fn words(group: &Group) -> Option<String> {
    let told: u64 = group.thread_names.iter().fold(0, |sum, name| sum.saturating_add(name.count));
    let alone = group.thread_names.len() == 1 && told >= group.count;
    let mut words: Vec<String> = group
        .thread_names
        .iter()
        .map(|name| match name.count {
            _ if alone => name.name.clone(),
            1 => name.name.clone(),
            n => format!("{} ({})", name.name, count(n)),
        })
        .collect();
    if !words.is_empty() && told < group.count {
        words.push(format!("{} with other names", count(group.count - told)));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::ThreadName;

    #[test]
    fn names_in_a_line() {
        let name = |name: &str, count| ThreadName { name: name.to_owned(), count };
        let group = |count, thread_names: Vec<ThreadName>| Group { count, thread_names, ..Group::default() };
        assert_eq!(words(&group(3, vec![])), None);
        assert_eq!(words(&group(3, vec![name("w-#", 3)])).unwrap(), "w-#");
        let some = group(9, vec![name("w-#", 3), name("main", 1)]);
        assert_eq!(words(&some).unwrap(), "w-# (3), main, 5 with other names");
    }
}
