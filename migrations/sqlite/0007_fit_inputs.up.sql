-- What a fit is made from, so that it can be made again and asked; and what lists show of it. Both are
-- empty in fits of an older build: those can be read, and not asked.
ALTER TABLE fits ADD COLUMN inputs_json TEXT NOT NULL DEFAULT '';
ALTER TABLE fits ADD COLUMN summary_json TEXT NOT NULL DEFAULT '';

-- The newest are listed first.
CREATE INDEX fits_by_time ON fits (created_at_ms, id);
