//! One database with an AppView: its schema tool, the real `drizzle-kit` from npm, runs at each of its starts.
//!
//! `make schema-test` installs the tool. The schema file is the tests' own, in `appview/`; the tool finds nothing to change
//! when it says so and the catalogue shows it.

mod catalogue;
mod earlier;
mod rows;
mod tool;

use penstock_local::testing::{TestRedis, fresh_database};
use sqlx::PgPool;

use crate::rig::Rig;
use catalogue::{Catalogue, sizes};
use tool::Outcome::{Applied, GaveUp, NothingToChange};
use tool::Version::{Next, Present};
use tool::{Edition, SchemaTool};

/// Which of both sides came to an empty database first.
#[derive(Clone, Copy, Debug)]
enum First {
    AppView,
    Penstock,
}

/// A database for both sides, and a Redis.
struct Shared {
    rig: Rig,
    tool: SchemaTool,
    _redis: TestRedis,
}

// === impl First ===

impl First {
    fn is_appview(self) -> bool {
        matches!(self, Self::AppView)
    }
}

// === impl Shared ===

impl Shared {
    /// An empty database, which both sides reach as the role `appview`.
    async fn empty(edition: Edition) -> Self {
        Self::of("appview", edition).await
    }

    async fn of(role: &str, edition: Edition) -> Self {
        let (redis, database) = (TestRedis::start().await.unwrap(), fresh_database().await.unwrap());
        // The test's PostgreSQL belongs to a role `penstock`.
        let database = if role == "penstock" { database } else { as_role(role, &database).await };
        let rig = Rig::between(&[("REDIS_URL", &redis.url())], &database).await;
        Self { rig, tool: SchemaTool::new(edition, &database), _redis: redis }
    }

    /// A database on which both sides were started once.
    async fn started(first: First, edition: Edition) -> Self {
        let shared = Self::empty(edition).await;
        match first {
            First::AppView => {
                assert_eq!(shared.tool.push(Present).await, Applied);
                shared.rig.migrate().await;
            }
            First::Penstock => {
                shared.rig.migrate().await;
                assert_eq!(shared.tool.push(Present).await, Applied);
            }
        }
        shared
    }

    async fn look(&self) -> Catalogue {
        Catalogue::of(&self.rig.pool).await
    }

    /// Asserts that a push finds nothing to change, and changes nothing.
    async fn assert_nothing_to_change(&self, when: &str) {
        let before = (self.look().await, sizes(&self.rig.pool).await);
        let outcome = self.tool.push(Present).await;
        self.look().await.assert_is(&before.0, when);
        assert_eq!(outcome, NothingToChange, "{when}");
        assert_eq!(sizes(&self.rig.pool).await, before.1, "{when}");
    }
}

/// The same database for another role, which may do everything.
async fn as_role(role: &str, database: &str) -> String {
    let make = format!(
        "DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         ALTER ROLE {role} LOGIN SUPERUSER PASSWORD '{role}'"
    );
    let pool = PgPool::connect(database).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(&pool).await.unwrap();
    pool.close().await;
    let (_, place) = database.split_once('@').unwrap();
    format!("postgres://{role}:{role}@{place}")
}

/// What the tool makes of an empty database, where nobody else ever was.
async fn theirs_alone(edition: Edition) -> Catalogue {
    let database = as_role("appview", &fresh_database().await.unwrap()).await;
    assert_eq!(SchemaTool::new(edition, &database).push(Present).await, Applied);
    Catalogue::of(&PgPool::connect(&database).await.unwrap()).await.public()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs drizzle-kit from npm: make schema-test"]
async fn after_the_appview_came_first_its_tool_finds_nothing_to_change() {
    for edition in Edition::ALL {
        let shared = Shared::empty(edition).await;
        assert_eq!(shared.tool.push(Present).await, Applied, "{edition:?}");
        let theirs = shared.look().await;
        shared.rig.migrate().await;
        shared.look().await.public().assert_is(&theirs.public(), "migrate leaves the AppView's tables alone");
        shared.assert_nothing_to_change("before a worker wrote").await;
        rows::write(&shared.rig, 1).await;
        rows::fill(&shared.rig.pool).await;
        shared.assert_nothing_to_change("with rows in every table").await;
        rows::write(&shared.rig, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs drizzle-kit from npm: make schema-test"]
async fn after_penstock_came_first_the_tool_makes_its_other_tables_and_changes_none_of_ours() {
    for edition in Edition::ALL {
        let shared = Shared::empty(edition).await;
        shared.rig.migrate().await;
        let ours = shared.look().await;
        assert!(!ours.0.iter().any(|line| line.contains("user_settings")), "made by the tool alone");
        rows::write(&shared.rig, 1).await;
        assert_eq!(shared.tool.push(Present).await, Applied, "{edition:?}");
        let both = shared.look().await;
        assert_eq!(ours.beyond(&both), Vec::<String>::new(), "what migrate made stands as it did");
        both.public().assert_is(&theirs_alone(edition).await, "as if Penstock had never been");
        shared.assert_nothing_to_change("at the second start").await;
        rows::write(&shared.rig, 2).await;
        rows::fill(&shared.rig.pool).await;
        shared.assert_nothing_to_change("with rows in every table").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs drizzle-kit from npm: make schema-test"]
async fn what_the_appviews_next_version_adds_is_applied_and_our_worker_goes_on() {
    for (first, edition) in both_orders() {
        let shared = Shared::started(first, edition).await;
        rows::write(&shared.rig, 1).await;
        rows::fill(&shared.rig.pool).await;
        let (before, rows_before) = (shared.look().await, sizes(&shared.rig.pool).await);
        assert_eq!(shared.tool.push(Next).await, Applied, "{first:?} first, {edition:?}");
        assert_next_version(&shared, &before).await;
        let mut rows_after = sizes(&shared.rig.pool).await;
        assert_eq!(rows_after.remove("public.translations"), Some(0));
        assert_eq!(rows_after, rows_before);
        // A deploy of both sides at once: our migration runs again, and finds columns that it does not know.
        shared.rig.migrate().await;
        rows::write(&shared.rig, 2).await;
        assert_eq!(shared.tool.push(Next).await, NothingToChange, "{first:?} first, {edition:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs drizzle-kit from npm: make schema-test"]
async fn a_forced_push_drops_nothing_of_ours_and_nothing_of_theirs() {
    for (first, edition) in both_orders() {
        let shared = Shared::started(first, edition).await;
        rows::write(&shared.rig, 1).await;
        rows::fill(&shared.rig.pool).await;
        let (before, rows_before) = (shared.look().await, sizes(&shared.rig.pool).await);
        assert_eq!(shared.tool.force(Present).await, NothingToChange, "{first:?} first, {edition:?}");
        shared.look().await.assert_is(&before, "forced");
        assert_eq!(sizes(&shared.rig.pool).await, rows_before);
        assert_eq!(shared.tool.force(Next).await, Applied, "{first:?} first, {edition:?}");
        assert_next_version(&shared, &before).await;
        let mut rows_after = sizes(&shared.rig.pool).await;
        assert_eq!(rows_after.remove("public.translations"), Some(0));
        assert_eq!(rows_after, rows_before);
        rows::write(&shared.rig, 2).await;
    }
}

/// Such a role has our schema first in its search path, where the tool would make its tables without ever finding them again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs drizzle-kit from npm: make schema-test"]
async fn a_role_that_is_named_like_our_schema_makes_its_tables_in_public_all_the_same() {
    for edition in Edition::ALL {
        let shared = Shared::of("penstock", edition).await;
        shared.rig.migrate().await;
        let ours = shared.look().await;
        assert_eq!(shared.tool.push(Present).await, Applied, "{edition:?}");
        let both = shared.look().await;
        assert!(both.beyond(&ours).iter().all(|line| line.contains("public.")), "{:#?}", both.beyond(&ours));
        both.public().assert_is(&theirs_alone(edition).await, "as any other role");
        shared.assert_nothing_to_change("at the second start").await;
        rows::write(&shared.rig, 1).await;
    }
}

/// What Penstock 0.1 did, and why nothing of ours stands in `public`: it also shows that these tests would notice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs drizzle-kit from npm: make schema-test"]
async fn a_table_or_column_that_the_tool_does_not_know_stops_it_or_is_dropped() {
    for edition in Edition::ALL {
        let shared = Shared::started(First::AppView, edition).await;
        let whole = shared.look().await;
        let run = async |sql: &'static str| sqlx::raw_sql(sql).execute(&shared.rig.pool).await.unwrap();
        run("CREATE TABLE public.stranger (id int); INSERT INTO public.stranger VALUES (1)").await;
        let before = shared.look().await;
        assert_eq!(shared.tool.push(Present).await, GaveUp, "a filled table");
        assert_eq!(shared.tool.push(Next).await, GaveUp, "and then nothing that is new");
        assert_eq!(shared.tool.force(Next).await, GaveUp, "was it renamed? not even by force");
        shared.look().await.assert_is(&before, "nothing is applied");
        assert_eq!(shared.tool.force(Present).await, Applied);
        shared.look().await.assert_is(&whole, "dropped, rows and all");
        run("ALTER TABLE likes ADD COLUMN stranger text").await;
        assert_eq!(shared.tool.push(Present).await, Applied, "an empty column");
        shared.look().await.assert_is(&whole, "dropped without a question");
    }
}

fn both_orders() -> impl Iterator<Item = (First, Edition)> {
    let firsts = [First::AppView, First::Penstock];
    firsts.into_iter().flat_map(|first| Edition::ALL.map(|edition| (first, edition)))
}

/// Asserts that everything stands that stood before, and what the next version adds besides.
async fn assert_next_version(shared: &Shared, before: &Catalogue) {
    let after = shared.look().await;
    assert_eq!(before.beyond(&after), Vec::<String>::new(), "gone with the next version");
    let added = after.beyond(before);
    for new in [
        "public.posts.is_translated boolean",
        "public.likes.reaction character",
        "public.translations.lang",
        "idx_likes_created_at",
    ] {
        assert!(added.iter().any(|line| line.contains(new)), "{new} is not in {added:#?}");
    }
}
