<?php
/**
 * Sends its argument to whoever serves the queue 1963150487: server.php or server.py.
 *
 *     php examples/php/client.php "this is will"
 */

declare(strict_types=1);

require __DIR__ . '/queue.php';

const KEY = 1963150487;
const TYPE = 10;

if (!msg_queue_exists(KEY)) {
    fwrite(STDERR, "nobody serves the queue " . KEY . ": start server.php or server.py\n");
    exit(1);
}
send(open_queue(KEY), TYPE, $argv[1] ?? 'this is will');
