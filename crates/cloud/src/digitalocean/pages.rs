//! Lists, which come in pages.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::digitalocean::http::Http;
use crate::rest::{self, parse};
use crate::{CloudError, ErrorKind, Result};

/// The most that the provider gives at once.
const PER_PAGE: &str = "200";
/// More pages than an account can fill: a list that never ends is an error.
const MAX_PAGES: u32 = 200;

/// One page of a list.
struct Page<T> {
    items: Vec<T>,
    next: Option<u32>,
    total: Option<u64>,
}

impl Http {
    /// Every page of a list. Any failed page fails the whole, and so does a list that does not stand still.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>> {
        let key = if path == "account/keys" { "ssh_keys" } else { path };
        self.list_under(doing, path, key, query).await
    }

    /// The same of a list that has another name in the answer than in its path.
    pub(super) async fn list_under<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        path: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>> {
        rest::settled(doing, || self.read_list(doing, path, key, query)).await
    }

    /// `None` when something moved between its pages.
    async fn read_list<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        path: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Option<Vec<T>>> {
        let broken = |message: &str| CloudError::new(ErrorKind::Protocol, doing, message);
        let first = self.page(doing, path, key, query, 1).await?;
        let (mut items, mut next, total) = (first.items, first.next, first.total);
        let mut number = 1;
        while let Some(asked) = next {
            // Only forward: a list that turns in a circle is broken, and so is one without an end.
            if asked <= number || asked > MAX_PAGES {
                return Err(broken("its pages do not end"));
            }
            number = asked;
            let page = self.page(doing, path, key, query, number).await?;
            if page.total != total {
                return Ok(None);
            }
            items.extend(page.items);
            next = page.next;
        }
        if total.is_some_and(|total| total > items.len() as u64) {
            return Err(broken("it is shorter than it says"));
        }
        Ok(Some(items))
    }

    async fn page<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        path: &str,
        key: &str,
        query: &[(&str, &str)],
        number: u32,
    ) -> Result<Page<T>> {
        let text = number.to_string();
        let query: Vec<_> = query.iter().copied().chain([("page", &*text), ("per_page", PER_PAGE)]).collect();
        let mut answer = self.get_page(doing, path, &query, number == 1).await?;
        // Of the address of the next page only its number is used: the token goes nowhere that a body names.
        let next = match answer.pointer("/links/pages/next").and_then(Value::as_str) {
            Some(address) => Some(page_number(address).ok_or_else(|| {
                CloudError::new(ErrorKind::Protocol, doing, "the address of its next page has no number")
            })?),
            None => None,
        };
        let total = answer.pointer("/meta/total").and_then(Value::as_u64);
        let items = parse(doing, answer.get_mut(key).map(Value::take).unwrap_or_default())?;
        Ok(Page { items, next, total })
    }
}

/// The number of the page that an address is of.
fn page_number(address: &str) -> Option<u32> {
    let (_, query) = address.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("page="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::page_number;

    #[test]
    fn the_next_page_is_a_number_and_no_place() {
        assert_eq!(page_number("https://api.example/v2/droplets?per_page=200&page=2&tag_name=a"), Some(2));
        assert_eq!(page_number("https://api.example/v2/droplets?per_page=2"), None);
        assert_eq!(page_number("https://elsewhere.example/"), None);
    }
}
