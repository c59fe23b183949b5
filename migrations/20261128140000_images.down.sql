-- Images that are still at a provider are forgotten: remove them with `stagely images rm` before this. Machines that were
-- being baked are found and removed by the sweep.
DELETE FROM work WHERE kind = 'image';
DELETE FROM cost_entries WHERE project_id IS NULL;
ALTER TABLE cost_entries ALTER COLUMN project_id SET NOT NULL;
ALTER TABLE machines
    DROP COLUMN image,
    DROP COLUMN image_id;
DROP TABLE images;
DELETE FROM work WHERE kind = 'machine' AND key IN (SELECT id FROM machines WHERE role = 'bake');
DELETE FROM machines WHERE role = 'bake';
ALTER TABLE machines
    DROP CONSTRAINT machines_project_check,
    DROP CONSTRAINT machines_role_check,
    ADD CONSTRAINT machines_role_check CHECK (role IN ('preview', 'builder')),
    ALTER COLUMN project_id SET NOT NULL;
