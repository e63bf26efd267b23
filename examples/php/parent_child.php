<?php
/**
 * Parent and child talk over a message queue.
 *
 *     php examples/php/parent_child.php
 *
 * Needs sysvmsg, pcntl and posix (Debian: php-cli). parent.py beside it is the same parent in
 * Python, for a child in PHP: php examples/php/child.php KEY.
 */

declare(strict_types=1);

require __DIR__ . '/queue.php';

const TO_CHILD = 10;
const TO_PARENT = 11; // a type of its own: with one type for both ways one may receive what it sent

// Not ftok(__DIR__): two programs in one folder would meet, and another checkout is another key.
$key = random_int(1, 0x7fffffff);
$queue = open_queue($key);
try {
    $pid = pcntl_fork();
    if ($pid === -1) {
        fwrite(STDERR, "no process could be forked\n");
        exit(1);
    }
    if ($pid === 0) {
        echo 'child got: ' . json_encode(receive($queue, TO_CHILD)) . "\n";
        send($queue, TO_PARENT, '我是子进程发送的消息');
        exit(0);
    }
    send($queue, TO_CHILD, 1234);
    echo 'parent got: ' . receive($queue, TO_PARENT) . "\n";
    pcntl_waitpid($pid, $status);
} finally {
    if (($pid ?? -1) !== 0) {
        msg_remove_queue($queue); // else it stays until the next boot
    }
}
