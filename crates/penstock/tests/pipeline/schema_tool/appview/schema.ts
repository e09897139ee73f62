// The tables that an AppView wants in its database, as its schema tool reads them: what Penstock writes and reads, and as many
// of the others as it takes to see that the tool makes them. APPVIEW_VERSION=next adds what a next version might.
import { sql } from 'drizzle-orm';
import {
  boolean, customType, index, integer, jsonb, pgTable, serial, text, timestamp, uniqueIndex, varchar,
} from 'drizzle-orm/pg-core';

const next = process.env.APPVIEW_VERSION === 'next';

// Columns are named by their keys.
const tsvector = customType<{ data: string }>({ dataType: () => 'tsvector' });
const uri = () => varchar({ length: 512 });
const name = () => varchar({ length: 255 }); // DIDs, CIDs and handles too
const some = () => timestamp();
const at = () => timestamp().notNull();
const now = () => timestamp().notNull().defaultNow();
const flag = (value: boolean) => boolean().notNull().default(value);
const count = () => integer().notNull().default(0);
const commit = () => ({
  commit_time: some(),
  commit_seq: varchar({ length: 32 }),
  commit_rev: varchar({ length: 64 }),
});
const written = () => ({ created_at: at(), indexed_at: now() });
const kept = () => ({ created_at: now(), updated_at: now() });
const record = () => ({ uri: uri().primaryKey(), cid: name().notNull() });
const subject = () => ({
  uri: uri().primaryKey(),
  user_did: name().notNull(),
  post_uri: uri().notNull(),
  subject_cid: name(),
  via: jsonb(),
  ...written(),
  ...commit(),
});

// === accounts ===

export const users = pgTable('users', {
  did: name().primaryKey(),
  handle: name().notNull(),
  display_name: name(),
  avatar_url: text(),
  banner_url: text(),
  description: text(),
  profile_record: jsonb(),
  pinned_post: jsonb(),
  search_vector: tsvector(),
  created_at: now(),
  indexed_at: now(),
}, (t) => [
  index('idx_users_handle').on(t.handle),
  index('idx_users_created_at').on(t.created_at),
  index('idx_users_search_vector').using('gin', t.search_vector),
]);

const account = () => name().references(() => users.did, { onDelete: 'cascade' });

export const userSettings = pgTable('user_settings', {
  user_did: account().primaryKey(),
  muted_users: jsonb().notNull().default([]),
  data_collection_forbidden: flag(false),
  last_backfill_at: some(),
  ...kept(),
});

export const sessions = pgTable('sessions', {
  id: name().primaryKey(),
  user_did: account().notNull(),
  access_token: text().notNull(),
  expires_at: at(),
  ...kept(),
}, (t) => [
  index('idx_sessions_user_did').on(t.user_did),
  index('idx_sessions_expires_at').on(t.expires_at),
]);

export const mutes = pgTable('mutes', {
  uri: uri().primaryKey(),
  muter_did: name().notNull(),
  muted_did: name().notNull(),
  ...written(),
}, (t) => [
  index('idx_mutes_muter').on(t.muter_did),
  index('idx_mutes_muted').on(t.muted_did),
  uniqueIndex('unique_mute_muter_muted').on(t.muter_did, t.muted_did),
]);

// === posts, and what is derived from them ===

export const posts = pgTable('posts', {
  ...record(),
  author_did: name().notNull(),
  text: text().notNull(),
  langs: jsonb(),
  parent_uri: uri(),
  parent_cid: name(),
  root_uri: uri(),
  root_cid: name(),
  embed: jsonb(),
  facets: jsonb(),
  violates_thread_gate: flag(false),
  violates_embedding_rules: flag(false),
  has_thread_gate: flag(false),
  has_post_gate: flag(false),
  tags: jsonb().notNull().default(sql`'[]'::jsonb`),
  search_vector: tsvector(),
  ...written(),
  ...commit(),
  ...(next && { is_translated: flag(false) }),
}, (t) => [
  index('idx_posts_author_did').on(t.author_did),
  index('idx_posts_indexed_at').on(t.indexed_at),
  index('idx_posts_created_at_author').on(t.created_at.desc(), t.author_did),
  index('idx_posts_parent_uri').on(t.parent_uri),
  index('idx_posts_root_uri').on(t.root_uri),
  index('idx_posts_search_vector').using('gin', t.search_vector),
  index('idx_posts_commit_seq_time').on(t.commit_seq, t.commit_time),
]);

export const translations = next && pgTable('translations', {
  post_uri: uri().primaryKey(),
  lang: varchar({ length: 16 }).notNull(),
  text: text().notNull(),
}, (t) => [index('idx_translations_lang').on(t.lang)]);

export const postAggregations = pgTable('post_aggregations', {
  post_uri: uri().primaryKey(),
  like_count: count(),
  repost_count: count(),
  reply_count: count(),
  bookmark_count: count(),
  quote_count: count(),
  ...kept(),
}, (t) => [
  index('idx_post_aggregations_like_count').on(t.like_count),
  index('idx_post_aggregations_repost_count').on(t.repost_count),
  index('idx_post_aggregations_reply_count').on(t.reply_count),
  index('idx_post_aggregations_bookmark_count').on(t.bookmark_count),
  index('idx_post_aggregations_quote_count').on(t.quote_count),
]);

export const feedItems = pgTable('feed_items', {
  uri: uri().primaryKey(),
  post_uri: uri().notNull(),
  originator_did: name().notNull(),
  type: varchar({ length: 32 }).notNull(),
  sort_at: at(),
  cid: name().notNull(),
  ...written(),
}, (t) => [
  index('idx_feed_items_originator').on(t.originator_did),
  index('idx_feed_items_post').on(t.post_uri),
  index('idx_feed_items_sort_at').on(t.sort_at),
  index('idx_feed_items_type').on(t.type),
  index('idx_feed_items_originator_sort').on(t.originator_did, t.sort_at.desc()),
]);

export const quotes = pgTable('quotes', {
  ...record(),
  post_uri: uri().notNull(),
  quoted_uri: uri().notNull(),
  quoted_cid: name(),
  ...written(),
}, (t) => [
  index('idx_quotes_post').on(t.post_uri),
  index('idx_quotes_quoted').on(t.quoted_uri),
  uniqueIndex('unique_quote_post_quoted').on(t.post_uri, t.quoted_uri),
]);

export const postViewerStates = pgTable('post_viewer_states', {
  post_uri: uri().notNull(),
  viewer_did: name().notNull(),
  like_uri: uri(),
  repost_uri: uri(),
  bookmarked: flag(false),
  thread_muted: flag(false),
  reply_disabled: flag(false),
  embedding_disabled: flag(false),
  pinned: flag(false),
  ...kept(),
}, (t) => [
  uniqueIndex('idx_post_viewer_states_post_viewer').on(t.post_uri, t.viewer_did),
  index('idx_post_viewer_states_post').on(t.post_uri),
  index('idx_post_viewer_states_viewer').on(t.viewer_did),
]);

export const threadContexts = pgTable('thread_contexts', {
  post_uri: uri().primaryKey(),
  root_author_like_uri: uri(),
  ...kept(),
}, (t) => [index('idx_thread_contexts_root_author_like').on(t.root_author_like_uri)]);

export const threadGates = pgTable('thread_gates', {
  post_uri: uri().primaryKey(),
  owner_did: name().notNull(),
  allow_mentions: flag(true),
  allow_following: flag(true),
  allow_list_members: flag(false),
  allow_list_uris: jsonb().notNull().default([]),
  ...kept(),
}, (t) => [index('idx_thread_gates_owner').on(t.owner_did)]);

export const postGates = pgTable('post_gates', {
  post_uri: uri().primaryKey(),
  created_at: now(),
  embedding_rules: jsonb().notNull().default({}),
}, (t) => [index('idx_post_gates_created_at').on(t.created_at)]);

// === what points at posts and accounts ===

export const likes = pgTable('likes', {
  ...subject(),
  ...(next && { reaction: varchar({ length: 64 }) }),
}, (t) => [
  index('idx_likes_user_did').on(t.user_did),
  index('idx_likes_post_uri').on(t.post_uri),
  uniqueIndex('unique_like_user_post').on(t.user_did, t.post_uri),
  ...(next ? [index('idx_likes_created_at').on(t.created_at)] : []),
]);

export const reposts = pgTable('reposts', subject(), (t) => [
  index('idx_reposts_user_did').on(t.user_did),
  index('idx_reposts_post_uri').on(t.post_uri),
  uniqueIndex('unique_repost_user_post').on(t.user_did, t.post_uri),
]);

export const bookmarks = pgTable('bookmarks', {
  uri: uri().primaryKey(),
  user_did: name().notNull(),
  post_uri: uri().notNull(),
  ...written(),
}, (t) => [
  index('idx_bookmarks_user_did').on(t.user_did),
  index('idx_bookmarks_post_uri').on(t.post_uri),
  uniqueIndex('unique_bookmark_user_post').on(t.user_did, t.post_uri),
]);

export const follows = pgTable('follows', {
  uri: uri().primaryKey(),
  follower_did: name().notNull(),
  following_did: name().notNull(),
  ...written(),
  ...commit(),
}, (t) => [
  index('idx_follows_follower').on(t.follower_did),
  index('idx_follows_following').on(t.following_did),
  uniqueIndex('unique_follow_follower_following').on(t.follower_did, t.following_did),
]);

export const blocks = pgTable('blocks', {
  uri: uri().primaryKey(),
  blocker_did: name().notNull(),
  blocked_did: name().notNull(),
  ...written(),
  ...commit(),
}, (t) => [
  index('idx_blocks_blocker').on(t.blocker_did),
  index('idx_blocks_blocked').on(t.blocked_did),
  uniqueIndex('unique_block_blocker_blocked').on(t.blocker_did, t.blocked_did),
]);

export const notifications = pgTable('notifications', {
  id: serial().primaryKey(),
  uri: uri().notNull().unique(),
  recipient_did: name().notNull(),
  author_did: name().notNull(),
  reason: varchar({ length: 64 }).notNull(),
  reason_subject: uri(),
  cid: name(),
  is_read: flag(false),
  ...written(),
}, (t) => [
  index('idx_notifications_recipient').on(t.recipient_did),
  index('idx_notifications_recipient_read').on(t.recipient_did, t.is_read),
  index('idx_notifications_recipient_created').on(t.recipient_did, t.created_at.desc()),
  index('idx_notifications_created_at').on(t.created_at),
  index('idx_notifications_indexed_at').on(t.indexed_at),
]);

// === lists, feeds, labels and all the rest ===

export const lists = pgTable('lists', {
  ...record(),
  creator_did: name().notNull(),
  name: name().notNull(),
  purpose: varchar({ length: 64 }).notNull(),
  description: text(),
  avatar_url: text(),
  ...written(),
}, (t) => [
  index('idx_lists_creator').on(t.creator_did),
  index('idx_lists_purpose').on(t.purpose),
  index('idx_lists_indexed_at').on(t.indexed_at),
]);

export const listItems = pgTable('list_items', {
  ...record(),
  list_uri: uri().notNull(),
  subject_did: name().notNull(),
  ...written(),
}, (t) => [
  index('idx_list_items_list').on(t.list_uri),
  index('idx_list_items_subject').on(t.subject_did),
  uniqueIndex('unique_list_item').on(t.list_uri, t.subject_did),
]);

export const listBlocks = pgTable('list_blocks', {
  uri: uri().primaryKey(),
  blocker_did: name().notNull(),
  list_uri: uri().notNull(),
  ...written(),
}, (t) => [
  index('idx_list_blocks_blocker').on(t.blocker_did),
  index('idx_list_blocks_list').on(t.list_uri),
  uniqueIndex('unique_list_block').on(t.blocker_did, t.list_uri),
]);

export const feedGenerators = pgTable('feed_generators', {
  ...record(),
  creator_did: name().notNull(),
  did: name().notNull(),
  display_name: name().notNull(),
  description: text(),
  avatar_url: text(),
  like_count: count(),
  ...written(),
}, (t) => [
  index('idx_feed_generators_creator').on(t.creator_did),
  index('idx_feed_generators_did').on(t.did),
  index('idx_feed_generators_like_count').on(t.like_count),
  index('idx_feed_generators_indexed_at').on(t.indexed_at),
]);

export const starterPacks = pgTable('starter_packs', {
  ...record(),
  creator_did: name().notNull(),
  name: name().notNull(),
  description: text(),
  list_uri: uri(),
  feeds: jsonb().notNull().default(sql`'[]'::jsonb`),
  ...written(),
}, (t) => [
  index('idx_starter_packs_creator').on(t.creator_did),
  index('idx_starter_packs_list').on(t.list_uri),
  index('idx_starter_packs_indexed_at').on(t.indexed_at),
]);

export const labelerServices = pgTable('labeler_services', {
  ...record(),
  creator_did: name().notNull(),
  policies: jsonb().notNull(),
  like_count: count(),
  ...written(),
}, (t) => [
  index('idx_labeler_services_creator').on(t.creator_did),
  index('idx_labeler_services_like_count').on(t.like_count),
  index('idx_labeler_services_indexed_at').on(t.indexed_at),
]);

export const labels = pgTable('labels', {
  uri: uri().primaryKey(),
  src: name().notNull(),
  subject: uri().notNull(),
  val: varchar({ length: 128 }).notNull(),
  neg: flag(false),
  ...written(),
}, (t) => [
  index('idx_labels_subject').on(t.subject),
  index('idx_labels_src').on(t.src),
  index('idx_labels_val').on(t.val),
  index('idx_labels_subject_val').on(t.subject, t.val),
]);

export const labelEvents = pgTable('label_events', {
  id: serial().primaryKey(),
  label_uri: uri().notNull().references(() => labels.uri, { onDelete: 'cascade' }),
  action: varchar({ length: 32 }).notNull(),
  created_at: now(),
}, (t) => [
  index('idx_label_events_created_at').on(t.created_at),
  index('idx_label_events_label_uri').on(t.label_uri),
]);

export const verifications = pgTable('verifications', {
  ...record(),
  subject_did: name().notNull(),
  handle: name().notNull(),
  verified_at: at(),
  ...written(),
}, (t) => [
  index('idx_verifications_subject').on(t.subject_did),
  index('idx_verifications_handle').on(t.handle),
  uniqueIndex('unique_verification_subject').on(t.subject_did),
]);

export const genericRecords = pgTable('generic_records', {
  ...record(),
  author_did: name().notNull(),
  record_type: name().notNull(),
  record: jsonb().notNull(),
  ...written(),
}, (t) => [
  index('idx_generic_records_author').on(t.author_did),
  index('idx_generic_records_type').on(t.record_type),
  index('idx_generic_records_created_at').on(t.created_at),
]);

// === the other ingestion ===

export const firehoseCursor = pgTable('firehose_cursor', {
  id: serial().primaryKey(),
  service: name().notNull().unique(),
  cursor: text(),
  last_event_time: some(),
  updated_at: now(),
}, (t) => [uniqueIndex('idx_firehose_cursor_service').on(t.service)]);
