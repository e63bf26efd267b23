<?php
/**
 * Sends three tasks as a Swoole server takes them: a text, a value, and one too large for a message.
 *
 *     php examples/php/swoole_client.php KEY TMPDIR [12|40] [WORKER_ID]
 */

declare(strict_types=1);

require __DIR__ . '/SwooleTask.php';

[, $key, $tmpdir] = $argv + [null, '822133180', sys_get_temp_dir()];
$tasks = new SwooleTask((int) $key, (int) ($argv[3] ?? 12), $tmpdir);
$worker = (int) ($argv[4] ?? 1);
foreach (['Hello from PHP!', ['n' => 7, 'list' => [1, 2.5, null]], str_repeat('x', 10000)] as $data) {
    echo $tasks->dispatch($data, $worker), "\n";
}
